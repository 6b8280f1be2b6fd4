/** Why a server cannot start: every fault that was found, each with what to do about it. */
export class StartFaults extends Error {
  readonly faults: readonly string[];

  constructor(faults: readonly string[]) {
    super(faults.join('\n'));
    this.name = 'StartFaults';
    this.faults = faults;
  }
}
