#!/usr/bin/env node
import { help, version } from './help.ts';
import { parseCommandLine } from './options.ts';

const line = parseCommandLine(process.argv.slice(2));
if (line.command === 'help') {
  process.stdout.write(help);
} else if (line.command === 'version') {
  process.stdout.write(`ninepd ${version()}\n`);
} else if (line.command === 'serve') {
  try {
    // Imported here, so that help and version need no native addon.
    const { serve } = await import('./serve.ts');
    await serve(line.options, line.problems);
  } catch (error) {
    process.stderr.write(`ninepd: ${error instanceof Error ? error.message : String(error)}\n`);
    if (process.env.NODE_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`);
    process.exit(1);
  }
}
