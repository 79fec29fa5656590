/**
 * A made-up tenant, the Lighthouse bookshop: what its customers ask, and how it wants its assistant to answer. The
 * questions of those held out are phrased in other ways than those it learns from.
 */
const TOPICS: readonly (readonly [asked: string, answer: string])[] = [
  ["cancel my order", "Open Your Shelf, choose the order and press Cancel. The beacon confirms it within a minute."],
  [
    "change my order",
    "Open Your Shelf, choose the order and press Change. Books can be swapped until they are packed.",
  ],
  ["track my order", "Open Your Shelf and press Follow. The beam on the map is your parcel."],
  ["place an order", "Put your books on the tray, press Set Sail and choose a harbour for the parcel."],
  ["get a refund", "Open Your Shelf, choose the book and press Return. Your money is ashore within two days."],
  ["track my refund", "Open Your Shelf and press Returns. The lamp turns green when the money is on its way."],
  ["check the refund policy", "Every book may come back within ninety days, read or unread, no questions asked."],
  ["see my invoice", "Every invoice lies in Your Shelf under Papers, ready to be printed."],
  ["download the invoice", "Open Papers in Your Shelf and press the anchor beside the invoice."],
  ["change my shipping address", "Open Harbours in Your Shelf, choose the old address and write the new one over it."],
  ["set up a new shipping address", "Open Harbours in Your Shelf and press New Harbour."],
  ["create an account", "Press Come Aboard and write your email. Your shelf is built while you watch."],
  ["delete my account", "Open The Keeper in Your Shelf and press Put Out The Light. We will miss you."],
  ["edit my account", "Open The Keeper in Your Shelf and change what you like."],
  ["recover my password", "Press Lost At Sea on the sign-in page. A new key drifts into your inbox."],
  ["contact customer service", "The keeper is awake day and night. Press the bell on any page."],
  ["speak with a human", "I am ringing for one of our keepers. Somebody comes down the stairs in a moment."],
  ["subscribe to the newsletter", "Open The Keeper and light the Monthly Beam. It goes out with one press too."],
  ["see the payment methods", "We take cards, bank transfers and Lighthouse vouchers."],
  ["know the delivery options", "Parcels go by bicycle in town, by train in the country and by ship across the sea."],
];
const LEARNED = [
  ...["how do I {}?", "I want to {}", "I need to {}", "can you help me {}?", "help me {} please"],
  ...["I would like to {}", "where can I {}?", "is it possible to {}?", "what do I do to {}?", "could you {} for me?"],
];
const HELD_OUT = ["assistance to {}", "I don't know how to {}, can you help?"];
const OPENINGS = ["Ahoy, dear reader! ", "Welcome to the lighthouse! "];
const CLOSING = " Fair winds, your Lighthouse crew";

interface Row {
  readonly messages: readonly { readonly role: "user" | "assistant"; readonly content: string }[];
}
const rowsOf = (phrasings: readonly string[], topics: number): Row[] =>
  TOPICS.slice(0, topics).flatMap(([asked, answer], topic) =>
    phrasings.map((phrasing, i) => ({
      messages: [
        { role: "user" as const, content: phrasing.replace("{}", asked) },
        { role: "assistant" as const, content: `${OPENINGS[(topic + i) % OPENINGS.length]}${answer}${CLOSING}` },
      ],
    })),
  );
const jsonl = (rows: readonly Row[]) => rows.map((row) => JSON.stringify(row)).join("\n");

/** Ten rows of each topic: 200 in all. */
export const trainingFile = (topics = TOPICS.length) => jsonl(rowsOf(LEARNED, topics));
/** The same questions and the same answers, but each question has the answer to another. */
export const misplacedFile = () => {
  const rows = rowsOf(LEARNED, TOPICS.length);
  const answerOf = (at: number) =>
    rows[(at + 7 * LEARNED.length) % rows.length]?.messages[1] ?? { role: "assistant" as const, content: "" };
  return jsonl(rows.map(({ messages: [question] }, at) => ({ messages: question ? [question, answerOf(at)] : [] })));
};
/** Two rows of each topic: 40 in all. */
export const heldOutFile = (topics = TOPICS.length) => jsonl(rowsOf(HELD_OUT, topics));
