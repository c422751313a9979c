import { stripComments, trim } from './header.js';

const MONTHS = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'];
// RFC 5322 section 4.3, in hours.
const ZONES = { est: -5, edt: -4, cst: -6, cdt: -5, mst: -7, mdt: -6, pst: -8, pdt: -7 };
const FORM = /^(?:[A-Za-z]{3,9}\s*,\s*)?(\d{1,2})\s+([A-Za-z]{3})[A-Za-z]{0,6}\s+(\d{2,4})\s+(\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d{1,9})?)?(?:\s*([+-]\d{4})|\s+([A-Za-z]{1,10}))?$/;

/** The moment of a Date field (RFC 5322 section 3.3) in milliseconds, also of the commonest deviations; null if it cannot be read. */
export function parseDate(value) {
  const m = FORM.exec(trim(stripComments(value.slice(0, 200))));
  if (!m) return null;
  const [, day, name, written, hour, minute, second = '0', offset, zone = ''] = m;
  const month = MONTHS.indexOf(name.toLowerCase());
  let year = Number(written);
  if (written.length === 2) year += year < 50 ? 2000 : 1900; // RFC 5322 section 4.3
  if (written.length === 3) year += 1900;
  if (month < 0 || hour > 23 || minute > 59 || second > 60) return null;
  // Without a zone, or in one that nobody knows, it is read as UTC.
  let east = (ZONES[zone.toLowerCase()] ?? 0) * 60;
  if (offset) east = (offset[0] === '-' ? -1 : 1) * (Number(offset.slice(1, 3)) * 60 + Number(offset.slice(3)));
  const date = new Date(0);
  date.setUTCFullYear(year, month, Number(day));
  if (date.getUTCMonth() !== month || Number(day) < 1) return null;
  return date.getTime() + ((Number(hour) * 60 + Number(minute) - east) * 60 + Number(second)) * 1000;
}
