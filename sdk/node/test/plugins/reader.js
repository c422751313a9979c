import { once } from 'node:events';
import net from 'node:net';
import { Access, serve } from '../../index.js';

class Reader extends Access {
  static about = { name: 'reader' };

  async serve() {
    const server = net.createServer(async (socket) => {
      for await (const reply of this.peer('storage').stream({ request: 'storage', storage: { op: 'watch', watch: {} } })) {
        socket.write(`${reply.storage.watch.modseq}\n`);
        if (reply.storage.watch.modseq === 2) break;
      }
      socket.end();
    }).listen({ fd: this.listeners[0].fd });
    if (!this.stopping.aborted) await once(this.stopping, 'abort');
    server.close();
  }
}

serve(Reader);
