// npm's `prepare`, for `npm install` in a clone and for an installation from a git URL: packages, addon and dist.
import { runProgram, setUp } from './setup.mjs';

await runProgram(setUp);
