// The WebSocket to the server; it is reopened whenever it is lost.

const FIRST_WAIT = 500; // ms, doubled with every attempt
const LONGEST_WAIT = 4000;

export class Connection {
  // handlers: opened(), lost(), state(values), picture(head, blob).
  constructor(handlers) {
    this.handlers = handlers;
    this.waiting = new Map(); // promises of commands, by request number
    this.requests = 0;
    this.wait = FIRST_WAIT;
    this.#open();
  }

  get isOpen() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  // Resolves to the result {message, object_id}; rejects with an error that says why the command failed.
  ask(command) {
    if (!this.isOpen) return Promise.reject(new Error("There is no connection to the server."));
    this.requests += 1;
    const request = this.requests;
    this.socket.send(JSON.stringify({ ...command, request }));
    return new Promise((resolve, reject) => this.waiting.set(request, { resolve, reject }));
  }

  // Acknowledges a drawn image, so that the server can send another one.
  drawn() {
    if (this.isOpen) this.socket.send('{"type": "drawn"}');
  }

  #open() {
    const socket = new WebSocket(`ws://${window.location.host}/connection`);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", () => {
      this.wait = FIRST_WAIT;
      this.handlers.opened();
    });
    socket.addEventListener("message", ({ data }) => this.#take(data));
    socket.addEventListener("close", ({ reason }) => {
      for (const { reject } of this.waiting.values()) reject(new Error("The connection was lost."));
      this.waiting.clear();
      this.handlers.lost(reason);
      window.setTimeout(() => this.#open(), this.wait);
      this.wait = Math.min(2 * this.wait, LONGEST_WAIT);
    });
  }

  #take(data) {
    if (typeof data === "string") {
      const values = JSON.parse(data);
      if (values.type === "state") {
        this.handlers.state(values);
        return;
      }
      const { resolve, reject } = this.waiting.get(values.request) ?? {};
      this.waiting.delete(values.request);
      if (values.ok) resolve?.(values);
      else if (reject) reject(new Error(values.message));
      return;
    }
    // Four bytes: the length of the JSON that follows; then the picture.
    const length = new DataView(data).getUint32(0);
    const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
    this.handlers.picture(head, new Blob([new Uint8Array(data, 4 + length)]));
  }
}
