import { pathToFileURL } from 'node:url';
import * as stagecoach from '../../index.js';

export class People extends stagecoach.Directory {
  static about = { name: 'people' };
  async resolve(address) {
    const [user, domain] = address.split('@');
    if (domain !== 'ryan.example') return stagecoach.notMine();
    return { meg: stagecoach.mailbox(address, { quotaBytes: 1 }), info: stagecoach.alias(['meg@ryan.example']),
      away: stagecoach.disabled(450, '4.2.1', 'On holiday') }[user] ?? stagecoach.noSuchUser();
  }

  async authenticate({ username, password }) {
    if (password !== 'sleepless') throw new stagecoach.Failure('DENIED', 'wrong password');
    return username;
  }

  async domains() { return ['ryan.example']; }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) stagecoach.serve(People);
