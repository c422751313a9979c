// Sets of UIDs, as UIDRange has them in the contract.
const LAST = 2 ** 32 - 1;

/** A set of UIDs: disjoint ranges [first, last] by growing UID, both included. */
export class UidSet {
  constructor(ranges = []) {
    this.ranges = ranges;
  }

  /** The set of the contract's ranges; none at all mean every UID. */
  static of(ranges = []) {
    if (ranges.length === 0) return new UidSet([[1, LAST]]);
    const list = ranges.map(({ first, last }) => [Math.max(first ?? 0, 1), last || LAST]).filter(([first, last]) => first <= last);
    return new UidSet(merged(list));
  }

  /** The set of those UIDs, in any order. */
  static from(uids) {
    return new UidSet(merged([...uids].map((uid) => [uid, uid])));
  }

  has(uid) {
    let low = 0, high = this.ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.ranges[middle][1] < uid) low = middle + 1;
      else high = middle;
    }
    return low < this.ranges.length && this.ranges[low][0] <= uid;
  }

  /** How many UIDs the set has. */
  get size() {
    return this.ranges.reduce((n, [first, last]) => n + last - first + 1, 0);
  }

  /** The UIDs, growing: look at size first, every UID is four billion. */
  *[Symbol.iterator]() {
    for (const [first, last] of this.ranges) for (let uid = first; uid <= last; uid++) yield uid;
  }

  /** What this set or one of the others has. */
  union(...others) {
    return new UidSet(merged([this, ...others].flatMap((s) => s.ranges)));
  }

  /** What both have. */
  intersection(other) {
    const out = [], a = this.ranges, b = other.ranges;
    for (let i = 0, j = 0; i < a.length && j < b.length;) {
      const first = Math.max(a[i][0], b[j][0]), last = Math.min(a[i][1], b[j][1]);
      if (first <= last) out.push([first, last]);
      if (a[i][1] < b[j][1]) i++;
      else j++;
    }
    return new UidSet(out);
  }

  /** The contract's form. */
  toRanges() {
    return this.ranges.map(([first, last]) => ({ first, last }));
  }
}

function merged(list) {
  const out = [];
  for (const [first, last] of list.sort((a, b) => a[0] - b[0])) {
    if (out.length > 0 && first <= out.at(-1)[1] + 1) out.at(-1)[1] = Math.max(out.at(-1)[1], last);
    else out.push([first, last]);
  }
  return out;
}
