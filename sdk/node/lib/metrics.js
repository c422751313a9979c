// What an instance counts. It appears on the server's /metrics page as
// stagecoach_plugin_PLUGIN_NAME, with the label plugin="filter.greylist.calm".
//
// Names and label names are letters, digits and _; a counter's name ends in _total,
// a unit stands in the plural: wait_seconds. A label's values should be few and
// known beforehand: each is a series that lives as long as the process.

/** Upper bounds for a histogram of times, from a millisecond to half a minute. */
export const SECONDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30];

class Value {
  #meta;
  /** The present value. */
  value = 0;

  constructor(name, help, counter, labels) {
    this.#meta = { name, help, counter, labels };
  }

  /** Adds n; a counter takes no negative one. */
  add(n = 1) {
    if (n < 0 && this.#meta.counter) throw new RangeError('a counter only grows: use a gauge');
    this.value += n;
  }

  metrics() {
    return [{ ...this.#meta, value: this.value }];
  }
}

class Counter extends Value {}

class Gauge extends Value {
  set(n) { this.value = n; }
}

class Histogram {
  #meta; #bounds; #counts; #sum = 0;

  constructor(name, help, bounds, labels) {
    this.#meta = { name, help, labels };
    this.#bounds = [...new Set(bounds)].sort((a, b) => a - b);
    this.#counts = new Array(this.#bounds.length + 1).fill(0);
  }

  /** Counts a value; NaN is not counted. */
  observe(value) {
    if (Number.isNaN(value)) return;
    const i = this.#bounds.findIndex((b) => value <= b);
    this.#counts[i < 0 ? this.#bounds.length : i]++;
    this.#sum += value;
  }

  // Prometheus's counters of what is at most le, for each bound, their sum and
  // their number.
  metrics() {
    const { name, help, labels } = this.#meta;
    let n = 0;
    const out = this.#counts.map((count, i) => ({
      name: `${name}_bucket`, help, counter: true, value: (n += count), labels: { ...labels, le: String(this.#bounds[i] ?? '+Inf') },
    }));
    out.push({ name: `${name}_sum`, help, counter: true, value: this.#sum, labels });
    out.push({ name: `${name}_count`, help, counter: true, value: n, labels });
    return out;
  }
}

/** Each is new at first use. */
export class Metrics {
  #all = new Map();

  /** A value that only grows; its name ends in _total. labels: { to: 'meg' }. */
  counter(name, help, labels = {}) {
    return this.#series(Counter, name, labels, () => new Counter(name, help, true, labels));
  }

  /** A value that also falls. */
  gauge(name, help, labels = {}) {
    return this.#series(Gauge, name, labels, () => new Gauge(name, help, false, labels));
  }

  /** Counts by size, for shares and percentiles; bounds are the upper ones, each included. */
  histogram(name, help, bounds = SECONDS, labels = {}) {
    return this.#series(Histogram, name, labels, () => new Histogram(name, help, bounds, labels));
  }

  #series(kind, name, labels, make) {
    const key = JSON.stringify([name, ...Object.entries(labels).sort()]);
    if (!this.#all.has(key)) this.#all.set(key, make());
    const series = this.#all.get(key);
    if (!(series instanceof kind)) throw new TypeError(`${name} is already a ${series.constructor.name.toLowerCase()}`);
    return series;
  }

  /** All of them in the contract's form, by name. */
  snapshot() {
    return [...this.#all].sort(([a], [b]) => (a < b ? -1 : 1)).flatMap(([, series]) => series.metrics());
  }
}
