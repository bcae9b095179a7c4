"""Scores of generated text by the reference tools, and stems of words by two of them:
crates/data/tests/golden/text_metrics.json and stems.json.

    pip install sacrebleu==2.6.0 rouge-score==0.1.2 nltk==3.10.4 pycocoevalcap==1.2
    python oracles/text_metrics.py

Also needs Java (17 was used): `pycocoevalcap` bundles the METEOR 1.5 jar, which runs here with its modules exact and
stem only. All texts are invented. The jar reads lines, so it gets line ends as spaces.

text_metrics.json:

    {"rows": [{hypothesis, references, tokens_13a (of the hypothesis),
               bleu, bleu_lowercase: sentence BLEU as {score, counts, totals, precisions, bp, sys_len, ref_len},
               chrf, chrf_pp, chrf_lowercase,
               rouge, rouge_stemmer: {rouge1, rouge2, rougeL, rougeLsum: [precision, recall, f1]},
               meteor_norm, meteor_lower: the score of the row}],
     "corpus": {the same names over all rows; ROUGE is the mean over rows, METEOR its final score}}

stems.json:

    [[word, Porter's stem by NLTK, Snowball's by METEOR]]; no stem by NLTK where rouge-score would not ask for one
"""

import itertools
import json
import pathlib
import subprocess

import pycocoevalcap
from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

JAR = pathlib.Path(pycocoevalcap.__path__[0]) / "meteor" / "meteor-1.5.jar"
OUT = pathlib.Path(__file__).parent.parent / "crates/data/tests/golden"
KINDS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]

ROWS = [
    ("the cat sat on the mat", ["the cat sat on the mat"]),
    ("The cat sat on the mat.", ["A cat was sitting on the mat.", "The cat is on the mat."]),
    ("", ["an empty hypothesis"]),
    ("something", [""]),
    ("", [""]),
    ("", ["", "one of two"]),
    ("   \t ", ["only white space"]),
    ("word", ["word"]),
    ("word", ["other"]),
    ("a", ["a b c d e f g h i j"]),
    ("the the the the the the the", ["The cat is on the mat", "There is a cat on the mat"]),
    ("the the cat the the dog the the", ["the dog the the cat saw the the the house the the"]),
    ("a b a b a b a b a b a b a b a b", ["b a b a b b a a b a b a a b b a b a"]),
    ("he said , he said , he said that he said", ["he said that , he said , that he had said"]),
    ("Prices rose 1,234.56 points, up 3.5%.", ["Prices rose by 1,234.56 points (3.5%)."]),
    ("In 1990's money: $5.00, 10-20 or 3-D", ["In the 1990s, $5 was 10-20 or 3D", "1990's $5.00 and 10 - 20"]),
    ("state-of-the-art, well-known co-operation", ["State of the art well known cooperation"]),
    ("It is a well - known fact -- or so they say", ["It is a well-known fact – or so they say"]),
    ("\"Don't!\" she said. 'I won't,' he replied.", ["“Don’t!” she said. ‘I won’t,’ he replied."]),
    ("``Quoted'' text isn't `easy'", ["\"Quoted\" text is not 'easy'"]),
    ("Tom &amp; Jerry said &quot;hi&quot; &lt;b&gt;", ["Tom & Jerry said \"hi\" <b>"]),
    ("&amp;quot; &amp;lt; &QUOT; &apos;", ["\" < &quot; '"]),
    ("a <skipped> word and hyphen-\nated line\nends", ["a word and hyphenated line ends"]),
    ("Café déjà vu, naïve façade in Zürich.", ["Cafe deja vu, naive facade in Zurich.", "Café déjà-vu: façade, Zürich"]),
    ("cafe\u0301 re\u0301sume\u0301", ["café résumé"]),
    ("İstanbul ISTANBUL ΟΔΟΣ ὈΔΥΣΣΕΎΣ Straße", ["istanbul i̇stanbul οδος ὀδυσσεύς STRASSE"]),
    ("今天天气很好，我们去公园吧。", ["今天天气不错，我们去公园散步吧。"]),
    ("東京 は 日本 の 首都 です 。", ["東京は日本の首都である。", "日本 の 首都 は 東京 です 。"]),
    ("Привет, мир! Как дела?", ["Привет, мир! Как твои дела?"]),
    ("مرحبا بالعالم ، كيف حالك ؟", ["مرحبا يا عالم، كيف حالك؟"]),
    ("I am so happy 😀😀 today 🎉!", ["I'm so happy 😀 today 🎉🎉!!"]),
    ("👩‍👩‍👧‍👦 family 🇫🇷 flag ❤️", ["👩‍👩‍👧‍👦 a family 🇫🇷 and its flag ❤"]),
    ("tabs\tand  double   spaces\u00a0and\u2003wide\u3000ones", ["tabs and double spaces and wide ones"]),
    ("zero\u200bwidth and \u0085 next\u001cline", ["zero width and next line"]),
    ("The quick brown foxes jumped over lazy dogs", ["A quick brown fox jumps over the lazy dog"]),
    ("running runner runs ran easily generously", ["run runners running ran easy generous generally"]),
    ("nations nationally nation national nationality", ["national nation nationally nations"]),
    ("the studies studied studying students study", ["studying the study of students who studied studies"]),
    ("Mr. Smith went to the U.S. in Jan. 2001.", ["Mr Smith went to the US in January 2001 ."]),
    ("See No. 5, pp. 12-14, e.g. Fig. 3 i.e. vs. Dr. Who... really.", ["See no 5 pp 12 to 14 e.g. figure 3 . . . "]),
    ("Wait.... what?!?! No...yes.. ok . . .", ["Wait... what?! No ... yes .. ok ..."]),
    (",,a,,b, ,c,1,2,,3", [", a , b , c , 1,2 , 3"]),
    ("'' ''' '' it's its' 'tis 5's x's", ["\" ' it 's its ' 't is 5 's x 's"]),
    ("first line here\nsecond line there\nthird", ["first line there\nthird line\nsecond here"]),
    ("one two three\n\n\nfour five\n", ["four five one\ntwo three", "one\ntwo\nthree\nfour\nfive"]),
    ("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", ["w1 w2 w3 w4 w5"]),
    ("It is a guide to action which ensures that the military always obeys the commands of the party",
     ["It is a guide to action that ensures that the military will forever heed Party commands",
      "It is the guiding principle which guarantees the military forces always being under the command of the Party",
      "It is the practical guide for the army always to heed the directions of the party"]),
    ("short one", ["a much longer reference than the hypothesis is", "short", "short one two", "x y z w"]),
    ("UPPER CASE AND lower case", ["upper case and LOWER CASE", "Upper Case And Lower Case"]),
    ("(brackets) [square] {curly} <angle> a/b a_b a*b #tag @at $1 50% x^2 ~y |z|",
     ["( brackets ) square curly < angle > a / b a _ b # tag at $ 1 50 % x ^ 2 ~ y z"]),
    ("http://example.org/a?b=c&d=e me@example.org v1.2.3", ["http://example.org/a?b=c me@example.com v1.2"]),
    ("ab", ["abcdefgh"]),
    ("!", ["?"]),
    ("!!! ??? ...", ["!!! ..."]),
    ("x" * 70, ["x" * 69, "y"]),
    ("of the , and to in", ["the of and , in to it"]),
    ("the committee of the whole of the house of the lords met in the hall of the house of the commons on the day of "
     "the opening of the session of the parliament of the country of the people of the north of the island",
     ["on the day of the opening of the session the committee of the whole house of the commons met in the hall of the "
      "lords of the parliament of the people of the country in the north of the island of the kings of the sea"]),
    ("a connection of connected connecting connections connects the connective connect",
     ["connect connected connection the connects connecting of a connective connections connected"]),
]

STEMS = [
    "abil", "activ", "adjust", "agre", "allow", "appl", "arsen", "bl", "bri", "carri", "ceas", "commun", "conflat",
    "connect", "cr", "decis", "depend", "di", "enjo", "fall", "fil", "formal", "gener", "geolog", "hop", "hopp",
    "hypothes", "l", "motor", "nation", "operat", "plast", "radical", "rel", "s", "sk", "succe", "syzyg", "theolog",
    "tr", "troubl", "univers", "use", "vale", "x", "yy",
]
ENDINGS = [
    "", "s", "'s", "es", "ies", "ied", "sses", "y", "ying", "ed", "eed", "eedly", "ing", "ingly", "er", "ational",
    "tional", "ization", "iveness", "fulness", "ousness", "aliti", "bility", "alli", "fully", "ogy", "ly", "icate",
    "ative", "ical", "ement", "ment", "ent", "ion", "tion", "ous", "ize", "e", "le", "ll",
]
WORDS = [
    "sky", "skies", "skis", "dying", "lying", "tying", "news", "inning", "innings", "outing", "outings", "canning",
    "cannings", "howe", "proceed", "exceed", "succeed", "idly", "gently", "ugly", "early", "only", "singly",
    "atlas", "cosmos", "bias", "andes", "herring", "earring", "proceeds", "bed", "shed", "feed", "bled", "yes",
    "say", "by", "boy", "fizzed", "hissing", "tanned", "failing", "enjoyment", "spied", "died", "flies", "dies",
    "gas", "this", "gaps", "kiwis", "rate", "roll", "controll", "'quoted'", "its'", "'s'", "y", "yy", "yyy", "ayy",
    "naïve", "cafés", "größe", "1990s", "a1s2ed",
]


class Meteor:
    """The jar over its standard input: statistics of each row, then scores of statistics."""

    def __init__(self, option):
        command = ["java", "-Xmx1G", "-jar", JAR, "-", "-", "-stdio", "-l", "en", option]
        command += ["-m", "exact stem", "-w", "1.0 0.6"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def statistics(self, hypothesis, references):
        texts = [text.replace("\n", " ") for text in [*references, hypothesis]]
        assert not any("|||" in text or "\r" in text for text in texts)
        return self.ask("SCORE ||| " + " ||| ".join(f" {text} " for text in texts))

    def scores(self, statistics):
        first = float(self.ask("EVAL ||| " + " ||| ".join(statistics)))
        rest = [float(self.process.stdout.readline()) for _ in statistics]
        return [first, *rest[:-1]], rest[-1]


def bleu_fields(score):
    return {"score": score.score, "counts": score.counts, "totals": score.totals, "precisions": score.precisions,
            "bp": score.bp, "sys_len": score.sys_len, "ref_len": score.ref_len}


def snowball(words):
    """METEOR's stemmer, through a small program, since the jar has no command for it."""
    program = """
        import org.tartarus.snowball.ext.englishStemmer;
        class S {
            public static void main(String[] arguments) throws Exception {
                var in = new java.util.Scanner(System.in, "UTF-8");
                var out = new java.io.PrintStream(System.out, true, "UTF-8");
                var stemmer = new englishStemmer();
                while (in.hasNextLine()) {
                    stemmer.setCurrent(in.nextLine());
                    stemmer.stem();
                    out.println(stemmer.getCurrent());
                }
            }
        }
    """
    source = OUT / "S.java"
    source.write_text(program)
    try:
        result = subprocess.run(["java", "-cp", JAR, source], input="\n".join(words), capture_output=True, check=True,
                                encoding="utf-8")
    finally:
        source.unlink()
    return result.stdout.split("\n")[: len(words)]


def main():
    OUT.mkdir(exist_ok=True)
    hypotheses = [hypothesis for hypothesis, _ in ROWS]
    # sacrebleu wants one list per reference place, with None where a row has fewer.
    transposed = list(itertools.zip_longest(*[references for _, references in ROWS]))
    tokenize = Tokenizer13a()
    rows = [{"hypothesis": hypothesis, "references": references, "tokens_13a": tokenize(hypothesis.rstrip()).split()}
            for hypothesis, references in ROWS]
    corpus = {}

    for name, lowercase in [("bleu", False), ("bleu_lowercase", True)]:
        corpus[name] = bleu_fields(BLEU(lowercase=lowercase).corpus_score(hypotheses, transposed))
        for row in rows:
            metric = BLEU(lowercase=lowercase, effective_order=True)
            row[name] = bleu_fields(metric.sentence_score(row["hypothesis"], row["references"]))
    for name, options in [("chrf", {}), ("chrf_pp", {"word_order": 2}), ("chrf_lowercase", {"lowercase": True})]:
        corpus[name] = CHRF(**options).corpus_score(hypotheses, transposed).score
        for row in rows:
            row[name] = CHRF(**options).sentence_score(row["hypothesis"], row["references"]).score
    for name, stemmer in [("rouge", False), ("rouge_stemmer", True)]:
        scorer = RougeScorer(KINDS, use_stemmer=stemmer)
        for row in rows:
            scores = scorer.score_multi(row["references"], row["hypothesis"])
            row[name] = {kind: list(scores[kind]) for kind in KINDS}
        corpus[name] = {kind: [sum(row[name][kind][part] for row in rows) / len(rows) for part in range(3)]
                        for kind in KINDS}
    for name, option in [("meteor_norm", "-norm"), ("meteor_lower", "-lower")]:
        meteor = Meteor(option)
        scores, corpus[name] = meteor.scores([meteor.statistics(*row) for row in ROWS])
        for row, score in zip(rows, scores):
            row[name] = score

    words = WORDS + sorted({stem + ending for stem in STEMS for ending in ENDINGS})
    porter = PorterStemmer()
    # rouge-score gives the stemmer ASCII letters and digits only.
    stems = [[word, porter.stem(word) if word.isascii() and word.isalnum() else None, english]
             for word, english in zip(words, snowball(words), strict=True)]
    # One row or word a line, so that a change can be read.
    def lines(items):
        return "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in items) + "\n]"

    (OUT / "text_metrics.json").write_text(f'{{"rows": {lines(rows)},\n"corpus": {json.dumps(corpus)}}}\n')
    (OUT / "stems.json").write_text(lines(stems) + "\n")


if __name__ == "__main__":
    main()
