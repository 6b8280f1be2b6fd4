// `npm start`: makes ready what is missing, then is the program. In this very process, so that signals reach it.
import { SetupFault, say, setUp } from './setup.mjs';

try {
  setUp();
} catch (error) {
  if (!(error instanceof SetupFault)) throw error;
  say(error.message);
  process.exit(1);
}
// npm changes to the repository; a relative path means the directory where the person is.
if (process.env.npm_lifecycle_event === 'start' && process.env.INIT_CWD) process.chdir(process.env.INIT_CWD);
await import('../dist/cli/main.js');
