// What a storage has to know of mail: messages rendered once, searches, flags, UIDs,
// threads, mailbox names. It keeps no message in memory and makes none.
export { ANSWERED, DELETED, DRAFT, FLAGGED, MOST_KEYWORDS, SEEN, applyFlags, hasKeyword, parseFlags } from './flags.js';
export { Decoder, decodeWords } from './decode.js';
export { fold } from './fold.js';
export { messageIds, threadIds } from './ids.js';
export { INBOX, ROLES, SPECIAL_USE, checkRole, mailboxName, parentOf } from './mailboxes.js';
export { compile } from './match.js';
export { Rendered, Renderer, render } from './render.js';
export { UidSet } from './uids.js';
