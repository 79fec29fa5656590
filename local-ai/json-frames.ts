/**
 * The parts of JSON as automata over bytes. Objects have the declared properties in the schema's order, with one space
 * after each comma and colon and no other outside of strings, as the model was trained.
 *
 * What a step costs does not depend on how many values or properties a schema lists: those with a common beginning are
 * one frame, and which go on with which byte is found out once for each.
 */

/** What is expected next; it takes bytes until it is done. */
export interface Frame {
  /** Bytes that it takes at least. */
  readonly least: number;
  /** Short; equal names expect equal things. */
  readonly name: string;
  /** It may be done without another byte. */
  readonly mayEnd?: boolean;
  /** @returns what is then expected, each possibility as frames one after another */
  next(byte: number): Next;
}
type Next = readonly (readonly Frame[])[];

/** A frame for a whole value. */
export interface ValueFrame extends Frame {
  /** Which values it may be, by their first byte. */
  readonly kinds: number;
  /** Possibilities that may have to be followed side by side, at most. */
  readonly width: number;
}

/** What a value begins with tells these apart. */
export const [STRING, NUMBER, OBJECT, ARRAY, TRUE, FALSE, NULL] = [1, 2, 4, 8, 16, 32, 64] as const;
const KINDS = [STRING, NUMBER, OBJECT, ARRAY, TRUE, FALSE, NULL] as const;

const DONE: Next = [[]];
const NOTHING: Next = [];
const encoder = new TextEncoder();
const codeOf = (character: string) => character.charCodeAt(0);
const [QUOTE, BACKSLASH, MINUS, POINT, COMMA] = [codeOf('"'), codeOf("\\"), codeOf("-"), codeOf("."), codeOf(",")];
const [OPEN_OBJECT, CLOSE_OBJECT, OPEN_ARRAY, CLOSE_ARRAY] = [codeOf("{"), codeOf("}"), codeOf("["), codeOf("]")];
const isDigit = (byte: number) => byte >= 0x30 && byte <= 0x39;

let made = 0;
/** Of a frame that is made once and never again: what is derived from it adds to it. */
const nameOf = () => `${(made++).toString(36)}.`;

/** One byte, and then. */
const one = (name: string, expected: number, then: readonly Frame[]): Frame => ({
  least: 1 + leastOf(then),
  name,
  next: (byte) => (byte === expected ? [then] : NOTHING),
});
const leastOf = (frames: readonly Frame[]) => frames.reduce((sum, { least }) => sum + least, 0);

/** Bytes, and what follows them. */
interface Way {
  /** Among those that a choice begins with. */
  readonly index: number;
  readonly bytes: Uint8Array;
  readonly then: readonly Frame[];
  readonly least: number;
}
const wayOf = (index: number, text: string, then: readonly Frame[] = []): Way => {
  const bytes = encoder.encode(text);
  return { index, bytes, then, least: bytes.length + leastOf(then) };
};

/** Several ways that have their first `depth` bytes in common: the first of them and the depth tell which. */
function ways(base: string, all: readonly Way[], depth = 0): Frame {
  let byByte: Map<number, Way[]> | undefined;
  const sorted = () => {
    const found = new Map<number, Way[]>();
    for (const way of all) {
      const byte = way.bytes[depth] as number;
      const same = found.get(byte);
      if (same) same.push(way);
      else found.set(byte, [way]);
    }
    return found;
  };
  return {
    least: all.reduce((least, way) => Math.min(least, way.least), Number.POSITIVE_INFINITY) - depth,
    name: `${base}${all[0]?.index}:${depth}`,
    next(byte) {
      byByte ??= sorted();
      const left = byByte.get(byte);
      if (!left) return NOTHING;
      const open = left.filter(({ bytes }) => bytes.length > depth + 1);
      const done = left.flatMap(({ bytes, then }) => (bytes.length === depth + 1 ? [then] : []));
      return open.length === 0 ? done : [...done, [ways(base, open, depth + 1)]];
    },
  };
}

const kindOf = (json: string): number => {
  const at = ['"', "{", "[", "t", "f", "n"].indexOf(json.charAt(0));
  return [STRING, OBJECT, ARRAY, TRUE, FALSE, NULL][at] ?? NUMBER;
};

/** One of some scalars, each as JSON. */
export function constants(all: readonly string[]): ValueFrame {
  const texts = [...new Set(all)];
  const kinds = texts.reduce((sum, text) => sum | kindOf(text), 0);
  const name = nameOf();
  // Of numbers one may begin another: 1 is done, or goes on to 12. Strings and words end with a byte of their own.
  return {
    ...ways(
      name,
      texts.map((text, index) => wayOf(index, text)),
    ),
    kinds,
    width: kinds & NUMBER && texts.length > 1 ? 2 : 1,
  };
}

export function anyOf(frames: readonly ValueFrame[]): ValueFrame {
  const widthOf = (kind: number) => frames.reduce((sum, { kinds, width }) => sum + (kinds & kind ? width : 0), 0);
  return {
    least: frames.reduce((least, frame) => Math.min(least, frame.least), Number.POSITIVE_INFINITY),
    name: nameOf(),
    kinds: frames.reduce((sum, { kinds }) => sum | kinds, 0),
    width: Math.max(...KINDS.map(widthOf)),
    next: (byte) => frames.flatMap((frame) => frame.next(byte)),
  };
}

const bytes = (name: string, ranges: readonly (readonly [number, number])[]): Frame => ({
  least: 1,
  name,
  next: (byte) => (ranges.some(([from, to]) => byte >= from && byte <= to) ? DONE : NOTHING),
});
const TAIL = bytes("tail", [[0x80, 0xbf]]);
/** UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing beyond U+10FFFF. */
const FOLLOWS: readonly (readonly [from: number, to: number, then: readonly Frame[]])[] = [
  [0xc2, 0xdf, [TAIL]],
  [0xe0, 0xe0, [bytes("e0", [[0xa0, 0xbf]]), TAIL]],
  [0xe1, 0xec, [TAIL, TAIL]],
  [0xed, 0xed, [bytes("ed", [[0x80, 0x9f]]), TAIL]],
  [0xee, 0xef, [TAIL, TAIL]],
  [0xf0, 0xf0, [bytes("f0", [[0x90, 0xbf]]), TAIL, TAIL]],
  [0xf1, 0xf3, [TAIL, TAIL, TAIL]],
  [0xf4, 0xf4, [bytes("f4", [[0x80, 0x8f]]), TAIL, TAIL]],
];
const HEX: readonly (readonly [number, number])[] = [
  [0x30, 0x39],
  [0x61, 0x66],
];
/** Control characters alone are written by their number. */
const CONTROL = [
  bytes("0", [[0x30, 0x30]]),
  bytes("0", [[0x30, 0x30]]),
  bytes("0-1", [[0x30, 0x31]]),
  bytes("hex", HEX),
];
const ESCAPE: Frame = {
  least: 1,
  name: "escape",
  next: (byte) => (byte === codeOf("u") ? [CONTROL] : '"\\/bfnrt'.includes(String.fromCharCode(byte)) ? DONE : NOTHING),
};

/** No reply is longer: a bound beyond it is none. */
const LONGEST = 1_000_000;
const counted = (most: number) => (most > LONGEST ? Number.POSITIVE_INFINITY : most);

/** A string; lengths are code points. */
export function text(least: number, most: number): ValueFrame {
  const limit = counted(most);
  const body = (count: number): Frame => {
    const more = () => body(limit === Number.POSITIVE_INFINITY ? Math.min(count + 1, least) : count + 1);
    return {
      least: Math.max(0, least - count) + 1,
      name: `text${least}-${limit}:${count}`,
      next: (byte) => {
        if (byte === QUOTE) return count >= least ? DONE : NOTHING;
        if (count >= limit || byte < 0x20) return NOTHING;
        if (byte === BACKSLASH) return [[ESCAPE, more()]];
        if (byte < 0x80) return [[more()]];
        const follows = FOLLOWS.find(([from, to]) => byte >= from && byte <= to);
        return follows ? [[...follows[2], more()]] : NOTHING;
      },
    };
  };
  return { ...one(`text${least}-${limit}`, QUOTE, [body(0)]), kinds: STRING, width: 1 };
}
const ANY_TEXT = text(0, Number.POSITIVE_INFINITY);

/** Digits that a double keeps, so that what is written is what is read. */
const MOST_DIGITS = 15;

export function number(isWhole: boolean): ValueFrame {
  const kind = isWhole ? "int" : "float";
  const tail = (byte: number): Next => {
    if (isWhole) return NOTHING;
    if (byte === POINT) return [[digits("fraction", 1, MOST_DIGITS, exponent)]];
    return exponent(byte);
  };
  const exponents = digits("exponent", 1, 2);
  const signed: Frame = {
    least: 1,
    name: "exponent",
    next: (byte) => (byte === MINUS ? [[exponents]] : exponents.next(byte)),
  };
  const exponent = (byte: number): Next => (byte === codeOf("e") ? [[signed]] : NOTHING);
  const whole: Frame = {
    least: 1,
    name: `${kind}whole`,
    next: (byte) => {
      if (byte === 0x30) return [[digits(`${kind}zero`, 0, 0, tail)]];
      return isDigit(byte) ? [[digits(`${kind}digits`, 0, MOST_DIGITS - 1, tail)]] : NOTHING;
    },
  };
  return {
    least: 1,
    name: kind,
    kinds: NUMBER,
    width: 1,
    next: (byte) => (byte === MINUS ? [[whole]] : whole.next(byte)),
  };
}

function digits(name: string, least: number, most: number, then: (byte: number) => Next = () => NOTHING): Frame {
  return {
    least,
    name: `${name}${least}-${most}`,
    mayEnd: least === 0,
    next: (byte) => {
      if (isDigit(byte)) return most > 0 ? [[digits(name, Math.max(0, least - 1), most - 1, then)]] : NOTHING;
      return least === 0 ? then(byte) : NOTHING;
    },
  };
}

export interface Property {
  readonly key: string;
  readonly value: ValueFrame;
  readonly isRequired: boolean;
}

export function object(properties: readonly Property[]): ValueFrame {
  const name = nameOf();
  const heads = properties.map(({ key }) => `${JSON.stringify(key)}: `);
  const count = properties.length;
  /** From each property on: what must still come, and up to which one there is a choice. */
  const leastFrom = new Array<number>(count + 1).fill(1);
  const nextRequired = new Array<number>(count + 1).fill(count);
  for (let at = count - 1; at >= 0; at--) {
    const { value, isRequired } = properties[at] as Property;
    const own = isRequired ? 2 + encoder.encode(heads[at]).length + value.least : 0;
    leastFrom[at] = own + (leastFrom[at + 1] as number);
    nextRequired[at] = isRequired ? at : (nextRequired[at + 1] as number);
  }
  const rest = (from: number, isFirst: boolean): Frame => {
    const required = nextRequired[from] as number;
    let choice: Frame | undefined;
    const made = (): Frame => {
      const all = required === count ? [wayOf(count, "}")] : [];
      for (let at = from; at <= Math.min(required, count - 1); at++) {
        const { value } = properties[at] as Property;
        if (value.least === Number.POSITIVE_INFINITY) continue;
        all.push(wayOf(at, `${isFirst ? "" : ", "}${heads[at]}`, [value, rest(at + 1, false)]));
      }
      return ways(`${name}${from}${isFirst}-`, all);
    };
    return {
      least: (leastFrom[from] as number) - (isFirst && required < count ? 2 : 0),
      name: `${name}${from}${isFirst}`,
      next(byte) {
        choice ??= made();
        return choice.next(byte);
      },
    };
  };
  const width = properties.reduce((most, { value }) => Math.max(most, value.width), 1);
  return { ...one(name, OPEN_OBJECT, [rest(0, true)]), kinds: OBJECT, width };
}

/** Any keys; a key that comes twice is JSON too, and its last value counts. */
export function map(value: ValueFrame): ValueFrame {
  const name = nameOf();
  const key = (then: () => Frame): readonly Frame[] => [
    ANY_TEXT,
    one(`${name}colon`, codeOf(":"), [one(`${name}space`, 0x20, [])]),
    value,
    then(),
  ];
  const isPossible = value.least < Number.POSITIVE_INFINITY;
  const more = (): Frame => ({
    least: 1,
    name: `${name}more`,
    next: (byte) => {
      if (byte === CLOSE_OBJECT) return DONE;
      return byte === COMMA && isPossible ? [[one(`${name}comma`, 0x20, []), ...key(more)]] : NOTHING;
    },
  });
  const first: Frame = {
    least: 1,
    name: `${name}first`,
    next: (byte) => {
      if (byte === CLOSE_OBJECT) return DONE;
      return isPossible ? afterFirst(key(more), byte) : NOTHING;
    },
  };
  return { ...one(name, OPEN_OBJECT, [first]), kinds: OBJECT, width: value.width };
}

const afterFirst = ([first, ...rest]: readonly Frame[], byte: number): Next =>
  first ? first.next(byte).map((then) => [...then, ...rest]) : NOTHING;

export function array(item: ValueFrame, least: number, most: number): ValueFrame {
  const name = nameOf();
  const limit = item.least < Number.POSITIVE_INFINITY ? counted(most) : 0;
  const rest = (count: number): Frame => {
    const missing = Math.max(0, least - count);
    const commas = 2 * (count === 0 ? Math.max(0, missing - 1) : missing);
    return {
      least: 1 + (missing > 0 ? missing * item.least + commas : 0),
      name: `${name}${count}`,
      next: (byte) => {
        if (byte === CLOSE_ARRAY) return count >= least ? DONE : NOTHING;
        if (count >= limit) return NOTHING;
        const more = rest(limit === Number.POSITIVE_INFINITY ? Math.min(count + 1, Math.max(least, 1)) : count + 1);
        if (count === 0) return afterFirst([item, more], byte);
        return byte === COMMA ? [[one(`${name}comma`, 0x20, []), item, more]] : NOTHING;
      },
    };
  };
  return { ...one(name, OPEN_ARRAY, [rest(0)]), kinds: ARRAY, width: item.width };
}

export const IMPOSSIBLE: ValueFrame = {
  least: Number.POSITIVE_INFINITY,
  name: "impossible",
  kinds: 0,
  width: 0,
  next: () => NOTHING,
};

/** Levels of a schema, and of a value that has none. */
export const MAX_LEVELS = 8;
const SCALARS = [ANY_TEXT, number(false), constants(["true", "false", "null"])];
/** Values of any type, by how many levels deep their objects and arrays are. */
const ANY: readonly ValueFrame[] = (() => {
  const made = [anyOf(SCALARS)];
  for (let inner = made[0]; made.length <= MAX_LEVELS && inner; inner = made.at(-1))
    made.push(anyOf([...SCALARS, map(inner), array(inner, 0, Number.POSITIVE_INFINITY)]));
  return made;
})();

/** Values of any type; objects and arrays so many levels deep. */
export const any = (levels: number): ValueFrame => ANY[levels] ?? IMPOSSIBLE;
