import { checkWord } from './contract.js';

/** An answer in SMTP's words; enhanced '' is derived from the code. */
export const smtpReply = (code, enhanced, text) => ({ code, enhanced, text });

/**
 * Why a call failed: the one error whose kind survives the plugin boundary. kind
 * is one of INTERNAL, INVALID, NOT_FOUND, EXISTS, DENIED, UNAVAILABLE, OVER_QUOTA,
 * TOO_LARGE, UNSUPPORTED, CONFLICT, DEADLINE, CANCELLED, NO_SPACE; common.proto
 * says what they mean, and the kind decides what an SMTP client is told. reply is
 * said instead, if given: new Failure('UNAVAILABLE', 'no answer', smtpReply(451,
 * '4.4.1', 'Later')).
 */
export class Failure extends Error {
  constructor(kind, text, reply) {
    super(text);
    this.name = 'Failure';
    this.kind = checkWord(kind, 'Problem.Kind');
    this.reply = reply ?? null;
  }

  /** The contract's form. */
  problem() {
    return { kind: this.kind, text: this.message, reply: this.reply };
  }

  /** The failure of the contract's form. */
  static of(problem) {
    return new Failure(problem.kind, problem.text, problem.reply);
  }
}

/** What an error of any sort is to the caller. */
export function failureOf(error) {
  if (error instanceof Failure) return error;
  return new Failure('INTERNAL', error instanceof Error ? `${error.name}: ${error.message}` : String(error));
}
