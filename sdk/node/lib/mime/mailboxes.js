// Names and roles of mailboxes, as the head of storage.proto has them.
import { Failure } from '../fail.js';

export const INBOX = 'INBOX';
/** The longest name, in octets. */
const LONGEST = 1024;

/** All roles (RFC 6154, RFC 8621); '' is none. One mailbox per role. */
export const ROLES = ['', 'inbox', 'drafts', 'sent', 'trash', 'junk', 'archive', 'all', 'flagged', 'important'];

/** The mailboxes that a new account has, with their roles. */
export const SPECIAL_USE = { [INBOX]: 'inbox', Drafts: 'drafts', Sent: 'sent', Trash: 'trash', Junk: 'junk', Archive: 'archive' };

/** INVALID for a role that there is not. */
export function checkRole(role) {
  if (!ROLES.includes(role)) throw new Failure('INVALID', `${JSON.stringify(role.slice(0, 40))} is no mailbox role`);
}

/**
 * A mailbox's name as it is stored and compared: in NFC, INBOX in capitals.
 * INVALID for an empty level, a control character, and more than 1024 octets.
 */
export function mailboxName(name) {
  const levels = name.normalize('NFC').split('/');
  if (!name.isWellFormed() || Buffer.byteLength(name) > LONGEST || levels.includes('') || /\p{Cc}/u.test(name)) {
    throw new Failure('INVALID', `no mailbox can be named ${JSON.stringify(name.slice(0, 40))}`);
  }
  if (levels[0].toUpperCase() === INBOX) levels[0] = INBOX; // RFC 9051 section 5.1
  return levels.join('/');
}

/** The name one level up; '' at the top. */
export const parentOf = (name) => name.slice(0, Math.max(0, name.lastIndexOf('/')));
