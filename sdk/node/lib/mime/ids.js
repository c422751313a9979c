/**
 * The ids of a Message-ID, In-Reply-To or References value (octets or a string),
 * without brackets and white space; what stands outside of brackets is passed over.
 */
export function messageIds(value) {
  const out = [], text = Buffer.isBuffer(value) ? value.latin1Slice() : value;
  for (let at = 0; ;) {
    const open = text.indexOf('<', at), close = text.indexOf('>', open + 1);
    if (open < 0 || close < 0) return out;
    const id = text.slice(open + 1, close).replace(/[ \t\r\n]+/g, '');
    if (id) out.push(id);
    at = close + 1;
  }
}

// So many of the newest references are looked up.
const MOST_REFERENCES = 20;

/**
 * The Message-IDs by which a message finds its thread: its own, what it answers,
 * what it refers to, the newest first. It belongs to the thread of the first one
 * that is known, and begins a thread if none is (RFC 8474 section 5.2 leaves the
 * rule to the server).
 */
export function threadIds(summary) {
  const references = messageIds(summary.references).reverse().slice(0, MOST_REFERENCES);
  return [...new Set([...messageIds(summary.messageId), ...messageIds(summary.inReplyTo), ...references])];
}
