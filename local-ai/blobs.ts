/** A row of an object's database holds 2 MB. */
const PART_BYTES = 1024 * 1024;

const SCHEMA = `
  create table if not exists blob (owner text not null, name text not null, part integer not null,
    bytes blob not null, primary key (owner, name, part)) without rowid;`;

/** Files of any length in an object's database, in parts. */
export class Blobs {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    sql.exec(SCHEMA);
  }

  has(owner: string, name: string): boolean {
    return this.#sql.exec("select 1 from blob where owner = ? and name = ? limit 1", owner, name).toArray().length > 0;
  }

  /** In the place of what was there. */
  write(owner: string, name: string, bytes: Uint8Array): void {
    this.#sql.exec("delete from blob where owner = ? and name = ?", owner, name);
    for (let part = 0; part * PART_BYTES < bytes.byteLength || part === 0; part++) {
      const piece = bytes.slice(part * PART_BYTES, (part + 1) * PART_BYTES);
      this.#sql.exec("insert into blob values (?, ?, ?, ?)", owner, name, part, piece.buffer);
    }
  }

  /** Empty where there is none. */
  read(owner: string, name: string): Uint8Array {
    const query = "select bytes from blob where owner = ? and name = ? order by part";
    const parts = this.#sql.exec<{ bytes: ArrayBuffer }>(query, owner, name).toArray();
    const whole = new Uint8Array(parts.reduce((sum, { bytes }) => sum + bytes.byteLength, 0));
    for (const [part, { bytes }] of parts.entries()) whole.set(new Uint8Array(bytes), part * PART_BYTES);
    return whole;
  }

  delete(owner: string, ...names: readonly string[]): void {
    for (const name of names) this.#sql.exec("delete from blob where owner = ? and name = ?", owner, name);
  }
}
