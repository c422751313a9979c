import { Filter, accept, serve } from '../../index.js';

class Subject extends Filter {
  static about = { name: 'subject', version: '1.0.0', summary: 'Looks at subjects' };
  static interest = { events: ['MESSAGE'], body: 'FULL' };

  async filter(event) {
    console.log('printed');
    this.log.warn('logged', { size: event.message.size });
    return accept().note(this.instance);
  }

  async drain() { this.log.info('drained'); }
  async close() { this.log.info('closed'); }
}

serve(Subject);
