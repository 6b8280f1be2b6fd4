import type { Bytes } from '#base/name.ts';
import type { SessionQuota } from '#quota/session-quota.ts';

/** The lock table of a file, as the sessions with locks in it see it. */
export interface LockTable {
  /** Releases all locks of a session and cancels its waiting requests. */
  dropClient(client: LockAccount): Promise<void>;
}

/** What a session holds of locks, as lock tables see it; implemented by `LockClient`. */
export interface LockAccount {
  readonly quota: SessionQuota;
  /** The session holds as many locks as it may. */
  readonly isFull: boolean;
  /** Number of queued requests. */
  waiting: number;
  /** Adds `more` to an owner's count. `some`: the session has entries left in the table. */
  counted(owner: LockOwner, more: number, table: LockTable, some: boolean): void;
}

/** Owner of locks: session, client_id and proc_id. Guests often have equal client_ids, hence the session. */
export class LockOwner {
  readonly client: LockAccount;
  readonly clientId: Bytes;
  readonly procId: number;
  readonly key: string;
  /** Number of its regions and unanswered requests. */
  count = 0;

  constructor(client: LockAccount, clientId: Bytes, procId: number) {
    this.client = client;
    this.clientId = clientId;
    this.procId = procId;
    this.key = ownerKey(clientId, procId);
  }

  isOfSameClient(other: LockOwner): boolean {
    return this.client === other.client && this.clientId === other.clientId;
  }
}

export function ownerKey(clientId: Bytes, procId: number): string {
  return `${procId} ${clientId}`;
}
