// The table goes to standard output and a bar to standard error; on a terminal the lines go above the bar.

/** `total` is the number of cases; `at` gets the number completed, with fractions, and the current case. */
export async function progress(total) {
  if (!process.stderr.isTTY) return { print: text => process.stdout.write(`${text}\n`), at() {}, stop() {} };
  const { default: bars } = await import('cli-progress');
  const format = '{bar} {percentage} % | {eta_formatted} left | {name}';
  const all = new bars.MultiBar({ format, hideCursor: true, clearOnComplete: true });
  const bar = all.create(total, 0, { name: '' });
  return {
    print: text => (process.stdout.isTTY ? all.log(`${text}\n`) : process.stdout.write(`${text}\n`)),
    at: (done, name) => bar.update(done, { name }),
    stop: () => all.stop(),
  };
}
