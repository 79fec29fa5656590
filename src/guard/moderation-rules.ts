import type { Category, Verdict } from "./moderation";

interface Rule {
  readonly name: string;
  /** How surely a match means each of these. */
  readonly means: Readonly<Partial<Record<Category, number>>>;
  readonly pattern: RegExp;
}

const WILL = "(?:will|'ll|am going to|'m going to|'m gonna|am gonna|want to)";
const GROUP =
  "(?:jews|muslims|christians|hindus|blacks|whites|asians|arabs|gays|lesbians|trans people|immigrants|refugees|women|men|disabled people)";

/**
 * Plain rules for English, each with a name that the reply shows. They find what is said outright and miss what is
 * meant: a first net, and what stands in where no safety model is configured.
 */
const RULES: readonly Rule[] = [
  {
    name: "harassment.insult",
    means: { harassment: 0.7 },
    pattern:
      /\byou(?:'re| are)? (?:an? |such an? |all |just )?(?:\w+ ){0,2}(?:idiot|moron|scum|worthless|pathetic|loser|imbecile)s?\b/i,
  },
  {
    name: "harassment.threat",
    means: { harassment: 0.7, "harassment/threatening": 0.9, violence: 0.8 },
    pattern: new RegExp(
      `\\bi ?${WILL} (?:\\w+ ){0,3}(?:kill|hurt|beat|stab|shoot|strangle|burn) (?:you|your|him|her|them)\\b`,
      "i",
    ),
  },
  {
    name: "hate.dehumanising",
    means: { hate: 0.9 },
    pattern: new RegExp(
      `\\b${GROUP} (?:are|is) (?:\\w+ ){0,2}(?:vermin|animals|subhuman|rats|parasites|inferior|filth|a plague)\\b`,
      "i",
    ),
  },
  {
    name: "hate.threat",
    means: { hate: 0.9, "hate/threatening": 0.9, violence: 0.7 },
    pattern: new RegExp(
      `\\b(?:${GROUP} (?:should|must|need to|deserve to) (?:\\w+ ){0,2}(?:die|be killed|be shot|burn|be exterminated)|(?:kill|exterminate|gas|shoot) (?:all |the |every )*${GROUP})\\b`,
      "i",
    ),
  },
  {
    name: "self-harm.intent",
    means: { "self-harm": 0.9, "self-harm/intent": 0.9 },
    pattern: new RegExp(
      `\\bi ?(?:${WILL}|wish to|plan to|'m about to) (?:\\w+ ){0,2}(?:kill myself|end my life|end it all|cut myself|hurt myself|die)\\b`,
      "i",
    ),
  },
  {
    name: "self-harm.instructions",
    means: { "self-harm": 0.9, "self-harm/instructions": 0.9 },
    pattern:
      /\b(?:how (?:do i|can i|to|should i)|ways to|best way to) (?:\w+ ){0,2}(?:kill myself|commit suicide|hang myself|overdose|cut myself|starve myself)\b/i,
  },
  {
    name: "sexual.explicit",
    means: { sexual: 0.8 },
    pattern:
      /\b(?:porn(?:ography|ographic)?|blowjobs?|handjobs?|masturbat(?:e|es|ed|ing|ion)|explicit sex|sex scene|nude (?:pics|photos|pictures)|erotica)\b/i,
  },
  {
    name: "sexual.minors",
    means: { sexual: 0.9, "sexual/minors": 0.95 },
    pattern:
      /\b(?:child(?:ren)?|minors?|underage|kids?|teens?|schoolgirls?|schoolboys?|(?:[1-9]|1[0-7])[- ]year[- ]old)\b.{0,30}\b(?:porn\w*|nudes?|sexual\w*|sex|erotica)\b/i,
  },
  {
    name: "violence.attack",
    means: { violence: 0.8 },
    pattern:
      /\b(?:how (?:do i|can i|to)|help me|plan to) (?:\w+ ){0,2}(?:murder|assassinate|massacre|shoot up|torture|bomb) (?:\w+ ){0,2}\w+/i,
  },
  {
    name: "violence.graphic",
    means: { violence: 0.7, "violence/graphic": 0.8 },
    pattern:
      /\b(?:behead(?:ed|ing)?|decapitat\w+|dismember\w*|disembowel\w*|mutilat\w+|entrails|gore-soaked|blood-soaked)\b/i,
  },
  {
    name: "illicit.weapons",
    means: { illicit: 0.9, "illicit/violent": 0.9 },
    pattern:
      /\b(?:build|make|assemble|construct|buy|get)\b.{0,40}\b(?:pipe bombs?|bombs?|explosives?|nerve agents?|sarin|ghost guns?|molotov cocktails?|silencers?)\b/i,
  },
  {
    name: "illicit.drugs",
    means: { illicit: 0.8 },
    pattern:
      /\b(?:cook|synthesi[sz]e|make|produce|sell|smuggle)\b.{0,30}\b(?:meth|methamphetamine|crack|cocaine|heroin|fentanyl|lsd|mdma)\b/i,
  },
  {
    name: "illicit.crime",
    means: { illicit: 0.75 },
    pattern:
      /\b(?:how (?:do i|can i|to)|help me) (?:\w+ ){0,2}(?:hack into|launder money|steal (?:an?|someone|from)|shoplift|counterfeit|forge (?:an?|documents)|phish|blackmail)\b/i,
  },
];

/** Several matches make a category surer: 1 − the product of their doubts. */
export function moderateByRules(text: string): Verdict {
  const plain = text.replace(/\s+/g, " ").replaceAll("’", "'");
  const matched = RULES.filter(({ pattern }) => pattern.test(plain));
  const doubts = new Map<Category, number>();
  for (const { means } of matched) {
    for (const [category, score] of Object.entries(means) as [Category, number][])
      doubts.set(category, (doubts.get(category) ?? 1) * (1 - score));
  }
  const scores = Object.fromEntries([...doubts].map(([category, doubt]) => [category, 1 - doubt]));
  return { scores, reasons: matched.map(({ name }) => name) };
}
