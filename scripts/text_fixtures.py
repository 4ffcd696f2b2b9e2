"""Writes tests/data/text/{clip,bert}.jsonl: difficult prompts with the ids of the Python originals.

    python scripts/text_fixtures.py TOKENIZER_FOLDER

One JSON object per line: `text`, `repeat` (number of repetitions of the text in the prompt, 1 if missing), and for each
flavour the truncated ids of the original and the count before truncation. If the text contains a special token, which the
originals parse, `special` is true and the ids are those of its characters, by the original's own steps.
"""

import json
import sys

from text_reference import END, FLAVOURS, ROOT, Reference

OUT = ROOT / "tests" / "data" / "text"

PLAIN = """a photo of a person riding a bike
A Portrait Of A PERSON as an astronaut, 8K, ultra-realistic
person eating pizza next to a dog
a person in the style of van gogh's starry night
don't, won't, I'll, we've, he's, they're, I'm, she'd, it'd've
DON'T WE'VE THEY'RE 'S 'RE 'VE 'LL 'M 'D 'T
rock'n'roll o'clock 'tis 'twas y'all
the dogs' toys and the dog's toy
high_quality __init__ snake_case_name _ __ a_b_c
1 12 123 1234 3.14 1,000,000 1990s 4k 8K 16:9
(masterpiece:1.2), [blurry], {red|blue}, <lora:foo:0.8>
e-mail me@example.com https://example.com/a?b=1&c=2#d
C++ C# F# .NET node.js a/b\\c
$5.00 100% #1 @home ^caret ~tilde `tick` |pipe|
hello!!! what??? ... ....... --- ===
"quoted" 'single' ''double single'' ""
a  b   c    d
emoji :) :-( <3 ^_^ ¯\\_(ツ)_/¯ (╯°□°)╯︵ ┻━┻
supercalifragilisticexpialidocious antidisestablishmentarianism
pneumonoultramicroscopicsilicovolcanoconiosis
asdfghjkl qwertyuiop zxcvbnm xkcd qqqq zzzz
iPhone McDonald's YouTube eBay LaTeX
A.B.C. U.S.A. e.g. i.e. etc. Mr. Dr.
1st 2nd 3rd 21st century
x=y+z*2-1/3
TikTok 📱 vs. Instagram""".split("\n")

UNICODE = """“curly double” and ‘curly single’ and don’t
„German“ ‚low‘ «guillemets» ‹single›
‛reversed‛ ‟reversed‟ ʼmodifierʼ ʹprimeʹ ′prime″
an em—dash, an en–dash, a minus−sign, a hyphen‐point, ‑non‑breaking
ellipsis… and dots...
• bullet ‣ triangle · middle dot ◦ ring
© ® ™ § ¶ † ‡ ‰
€100 £50 ¥20 ¢5 ₹10 ₿1 ₽ ₩
20°C ± 5 µm × 3 ÷ 2 ≈ ∞ √2 ∑ ∏ ∫ ∂ ∆
½ ¼ ¾ ⅓ x² y³ z¹ H₂O 10⁻³
№5 ℡ ℃ Å K Ω
café crème brûlée à la mode, naïve façade, coöperate
Übergröße Straße STRASSE ẞ ß
El Niño mañana ¿qué? ¡sí!
smörgåsbord på ö, Åre, Ærø, Øl
Zażółć gęślą jaźń
Příliš žluťoučký kůň úpěl ďábelské ódy
Tiếng Việt ở đây, Nguyễn
İstanbul ığdır ŞİŞLİ DİYARBAKIR
ąčęėįšųūž āčēģīķļņšūž ő ű Ő Ű
Привет мир, это мост. ПРИВЕТ
Ελληνικός ΟΔΥΣΣΕΥΣ ΣΟΦΟΣ, ΑΣ. ΑΣΑ Σ ΣΣ σς
ΟΔΟΣ. ΟΔΟΣ! «ΟΔΟΣ» ΟΔΟΣ2 ΟΔΟΣ'S ΟΔΟΣ\u0301Α
日本語のテキスト、テスト。
中文测试，你好世界！
繁體中文 測試
한국어 텍스트 테스트
مرحبا بالعالم، كيف حالك؟
שלום עולם
हिन्दी भाषा नमस्ते
ไทย ภาษา สวัสดี
ქართული ენა Ⴀ Ა
Հայերեն լեզու և ԵՒ
አማርኛ ᏣᎳᎩ ꮳꮃꭹ ᐃᓄᒃᑎᑐᑦ
தமிழ் తెలుగు ಕನ್ನಡ മലയാളം বাংলা ਪੰਜਾਬੀ ગુજરાતી ଓଡ଼ିଆ
mixed עברית and English עם 123
😀 😃 👍 👍🏽 ❤️ ❤ ☺️ ☺
👨‍👩‍👧‍👦 family 🏳️‍🌈 flag 👩🏽‍🚀 astronaut 🧑‍🤝‍🧑
🇫🇷 🇩🇪 🇯🇵 🏴󠁧󠁢󠁥󠁮󠁧󠁿 1️⃣ #️⃣ *️⃣
🫠🫡🫥 new 🫨🫷🩷 newer 🛜 emoji
🤖robot🤖robot 🎨art
ﬁne ﬂuﬃest ﬀ ﬄ ﬅ ﬆop
Ĳsland ĳs ŉ ǅ ǆ Ǆ Ǉ ǉ Ǌ ǌ Ǳ ǳ
æther œuvre Œuvre ŒUVRE ÆON
ＦＵＬＬ　ｗｉｄｔｈ　１２３！？
＂ｑｕｏｔｅｓ＂ ＇ｓ ＆ａｍｐ； ＜ｂ＞
ﾊﾝｶｸ ｶﾀｶﾅ ｶﾞ ﾊﾟ ｡｢｣､･
ﾡﾢﾣ ￠￡￢￣￤￥￦ ￨￩￪￫
٠١٢٣٤٥٦٧٨٩ ۰۱۲ ०१२३ ๑๒๓ ௧௨ 一二三
Ⅷ ⅻ ① ⑳ ㊿ 🄀 ⓐ ⒜ 𝟘𝟙 ㍿
𝓯𝓪𝓷𝓬𝔂 𝕕𝕠𝕦𝕓𝕝𝕖 𝐛𝐨𝐥𝐝 𝑖𝑡𝑎𝑙𝑖𝑐 𝔣𝔯𝔞𝔨𝔱𝔲𝔯 ⓒⓘⓡⓒⓛⓔⓓ
ʇxǝʇ uʍop ǝpᴉsdn ˢᵐᵃˡˡ ᴄᴀᴘꜱ
z̸̢̛a̵l̷g̴o̶ t̷e̸x̵t̶
𐐀𐐁𐐂 𐐨 𒀀𒁀 𓀀𓁀 🀄
𠀀𠀁 㐀㐁 豈更 〇 々 〆 ヶ
Ａ\u030a Å Å A\u030a a\u0308 e\u0301 ñ n\u0303 ộ o\u0323\u0302 o\u0302\u0323
\u0344 \u0374 \u037e \u0387 \u1fef \u2126 \u212a \u2000 \u2001
a\u0345b ᾳ ΑΙ ᾼ \u0345 ᾱͅ
ſtrange ſ ’ſ 'ſ it'ſ
ÇA VA? ÀÉÎÕÜ àéîõü ÿ Ÿ
ǰ ŉ ẖ ẗ ẘ ẙ ẚ ΐ ΰ և ﬓ
ꙮ ꟿ Ꜳ ꜳ Ꞁ Ɥ Ɦ Ʞ ᲀ ᲈ Ꙋ ꭰ Ꭰ Ᏸ ᏸ
\u1c89 \u1c8a \ua7cb \ua7dc \u0558 \u088f \U00031350 \U0002ebf0
\u0e33 \u0eb3 \u0f43 \u0958 \u09dc \ufb1d \ufb2a
\ufdfa ﷽ ﻼ ﺍ ﺎ
★☆✓✗→←↑↓⇒■□▲△●○♪♫☀☁☂☃
─│┌┐└┘├┤┬┴┼═║ █▓▒░
⠃⠗⠁⠊⠇⠇⠑ ♔♕♖ ⚀⚁ ☯☮✡☪""".split("\n")

HTML = """cats &amp; dogs
cats &amp;amp; dogs
cats &amp;amp;amp; dogs
&lt;b&gt;bold&lt;/b&gt;
&amp;lt;b&amp;gt;
<b>bold &amp; brave</b>
5 < 6 &amp; 7 &gt; 6
a &amp; b\n<i>c &amp; d</i>\ne &amp; f
caf&eacute; P&EACUTE;REZ &ntilde; &NTILDE; &nTILDE; &szlig; &SZLIG;
caf&eacute noir &copy 2020 &reg &amp &lt &gt &quot
&notit; &notin; &not &ampamp; &ampere &pound5
&hellip; &ldquo;quoted&rdquo; &lsquo;x&rsquo; &mdash; &nbsp;x
&#65;&#x41;&#X41; &#8217; &#x2019; &#39; &apos;
&#65 &#x41 &#8217 &#x2019s
&#128; &#150; &#x80; &#x99; &#159; &#133;
&#0; &#1; &#11; &#127; &#129; &#x81;
&#xD800; &#xDFFF; &#x110000; &#99999999999; &#xFFFE; &#xFDD0;
&#59; &#x3b; &#38;amp; &#x26;lt;
& && &; &#; &#x; &#xg; &#a; &x; & amp;
AT&T R&D Q&A a&b;c
&Jscr;ohn &HilbertSpace;ancock &checkmark; &CounterClockwiseContourIntegral;
&bne; &NotEqualTilde; &fjlig; &ThickSpace;x &acE;
&nosuchentity; &averyveryveryverylongentityname; &aveeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeery;
&zwj; &zwnj; &lrm; &shy; &ZeroWidthSpace; &NoBreak;
&amp;#65; &amp;#x41; &amp;amp;#65; &amp;eacute; &amp;copy
&Tab;x &NewLine;y
&LT; &GT; &AMP; &QUOT; &COPY; &REG &Amp; &aMP;
&commat; &num; &lbrack; &lowbar; &excl; &period;
&lt;|endoftext|&gt
it&#x27;s &#x27;quoted&#x27; &quot;x&quot;""".split("\n")

MOJIBAKE = """schÃ¶n Ã©tÃ© cafÃ© Ã la mode fÃ cil
â€œquotedâ€\u009d donâ€™t â€“ â€” â€¦
â€œlossyâ€� likeâ€™this�
Â£5 Â© 2020 5Â°C Â¿quÃ©? Ã± Ã‘
ðŸ˜€ ðŸ‘ ðŸ˜Š emoji
PÅ™Ã­liÅ¡ Å¾luÅ¥ouÄ�kÃ½ kÅ¯Åˆ
РџСЂРёРІРµС‚ РјРёСЂ
вЂњcyrillicвЂќ вЂ” Р±
Î•Î»Î»Î·Î½Î¹ÎºÎ¬
æ—¥æœ¬èªž ä¸­æ–‡
ÃƒÂ©tÃƒÂ© ÃƒÂ¢Ã¢â€šÂ¬Ã‹Å“double
Ã¢â‚¬Å“twiceÃ¢â‚¬Â\u009d
voilÃ  le travail, Ã  quel point
Ã quele Ã s vezes
\u0093quoted\u0094 it\u0092s \u0085 \u0080 \u0099
caf\u00c3\u00a9 \u00e2\u009c\u0094 ok
√©t√© na√Øve ‚Äúmac‚Äù ‚Äôs
├⌐t├⌐ ΓÇ£cp437ΓÇ¥ ΓÇÖs
Ä\u008d Å¡ Å\u00be
ã\u0081‚ã\u0081„ã\u0081† ツ
IÃ±tÃ«rnÃ¢tiÃ´nÃ lizÃ¦tiÃ¸n
×©×œ×•×\u009d Ø§Ù„Ø¹Ø±Ø¨ÙŠØ©
à¤¹à¤¿à¤¨à¥\u008dà¤¦à¥€
í\u00a0½í¸\u0080 cesu
À\u0080null Ã€
AHÅ™, the new sofa from IKEA®
HÃ€MÃ€LÃ€INEN
The Mona Lisa doesnÃƒÂ¢Ã¢â€šÂ¬Ã¢â€žÂ¢t have eyebrows.
L&AMP;AMP;ATILDE;&AMP;AMP;SUP3;PEZ
“mojibake â€“ and “real” – é
ï»¿bom ï¿½ ï¬\u0081
é\nÃ©\nЖ\nâ€™
ŠÃ©Ž Å\u00a0 Ÿ
ā€œlatvianā€\u009d Ä\u0081
β€\u0099greekβ€ Ξ\u00adΞ
\u041d\u0406\u0414\u0404
¯\\_(ã\u0083\u0084)_/¯
Ø§ Ù† °±""".split("\n")

SPACES = [
    "", " ", "\n", "\t \r\n", "\u3000", "\u00a0\u2003", "\ufeff", "\u200b", "\u200d", "\u00ad", "\x00", "\x1c", "\u2028",
    "\ufeffa photo", "a\ufeffphoto", "a\u00a0photo\u2003of\u2009a\u202fcat\u205fhere\u3000ok",
    "a\u200bphoto\u200cof\u200da\u2060cat", "tab\tnew\nline\r\nreturn\rform\x0cfeed\x0bvt\x85nel\u2028ls\u2029ps",
    "  leading and trailing  ", "\x1cfs\x1dgs\x1ers\x1fus", "\x00nul\x01soh\x02 \x07bell\x08back\x7fdel",
    "\x80\x81\x8d\x8f\x90\x9d\x9f", "a\x85b", "soft\u00adhyphen", "\u200elrm\u200frlm \u202aembed\u202c \u2066iso\u2069",
    "\u206anational\u206f \ufff9anno\ufffatated\ufffb \ufffcobject", "\ufffd replacement", "\ufffe\uffff\U0010ffff",
    "\x1b[31mred\x1b[0m \x1b[1;2Xx \x1b[٣m y", "\x1b[31 \x1b[ \x1b", "mongolian\u180evowel", "ogham\u1680space",
    "\ue000\uf8ff private \U000f0000", "braille\u2800blank", "hangul\u3164filler\uffa0half", "\u115f\u1160",
    "variation\ufe0f selector\ufe0e x\U000e0100", "\r", "\r\n\r\n", "a\rb\r\nc\nd", "&#10;x&#13;y&#9;z", "&nbsp;", "&#xfeff;",
]  # fmt: skip

SPECIAL = """<|endoftext|>
<|startoftext|>
a cat <|endoftext|> a dog
<|startoftext|>a cat<|endoftext|>
<|EndOfText|> <|STARTOFTEXT|>
a<|endoftext|>b
<|endoftext|><|endoftext|><|endoftext|>
[CLS] [SEP] [UNK] [PAD] [MASK]
a cat [SEP] a dog
[cls] [Sep] [mask]s
&lt;|endoftext|&gt; twice
＜|endoftext|＞ wide
<|endoftext| > <| endoftext|> <|endoftext
<start_of_text> <end_of_text>""".split("\n")

LONG = [
    ("word ", 73), ("word ", 74), ("word ", 75), ("word ", 76), ("word ", 77), ("word ", 78), ("word ", 500), ("a", 1), ("a ", 33), ("a ", 34),
    ("a ", 32), ("x", 99), ("x", 100), ("x", 101), ("x", 1000), ("xyz", 400), ("ab1", 100), ("!", 300), ("日本", 60),
    ("é", 200), ("👍", 50), ("&amp;", 80), ("&amp;amp;", 80), ("Ã©", 90), ("don't ", 40), ("'s", 50), ("1", 80), (" ", 500),
    ("\n", 100), ("e\u0301", 100), ("Σ", 60), ("supercalifragilisticexpialidocious", 20), ("the quick brown fox ", 125),
    ("a\u0301\u0302\u0303", 70), ("aé ", 40), ("_", 120), ("ſ", 40), ("ﷺ", 12), ("a, ", 38), ("cat dog ", 37), ("<|endoftext|>", 12),
]  # fmt: skip

# Templates with facial attributes, like the toolkit's prompts, to cover real use too.
TEMPLATES = [
    f"a {style} of a person {action}{place}"
    for style, action, place in zip(
        ["photo", "painting", "3D render", "close-up", "black-and-white photograph", "pop-art poster", "sketch"] * 10,
        ["riding a skateboard", "drinking a cup of coffee", "as a clown skiing", "holding an umbrella", "petting a cat", "reading",
         "playing the violin", "sitting on a sofa", "driving a vintage car", "eating sushi"] * 7,
        [" near Saturn", " in Paris, France", " at sunset", " next to the Eiffel Tower", " during Día de Muertos", "", " (1920s)",
         " – winter", " on Mt. Fuji 富士山", " in São Paulo", " & friends"] * 7,
    )
]  # fmt: skip


def cases() -> list[dict]:
    texts = [*PLAIN, *UNICODE, *HTML, *MOJIBAKE, *SPACES, *SPECIAL, *TEMPLATES]
    assert len(texts) == len(set(texts)), "duplicate prompts"
    return [{"text": text} for text in texts] + [{"text": text, "repeat": times} for text, times in LONG]


def main() -> None:
    reference = Reference(sys.argv[1])
    OUT.mkdir(parents=True, exist_ok=True)
    clip_lines, bert_lines, special = [], [], 0
    for case in cases():
        text = case["text"] * case.get("repeat", 1)
        entry = {"clip": dict(case), "bert": dict(case)}
        for flavour in FLAVOURS:
            family, context = ("bert", 35) if flavour == "bert" else ("clip", 77)
            ids = reference.text(flavour, text)
            cut = ids if len(ids) <= context else [*ids[: context - 1], ids[-1]]
            if reference.original(flavour, text) == ids:
                assert reference.cut(flavour, text) == cut, (flavour, text)
            else:
                entry[family]["special"] = True
            if flavour == "openai" and reference.hpsv2 and "_of_text>" not in text:
                theirs = reference.hpsv2.encode(text)
                assert theirs == ids[1:-1] or END in reference.openai.encode(text), text
            entry[family][flavour] = {"ids": cut, "count": len(ids)}
        special += "special" in entry["clip"] or "special" in entry["bert"]
        clip_lines.append(json.dumps(entry["clip"]))
        bert_lines.append(json.dumps(entry["bert"]))
    (OUT / "clip.jsonl").write_text("\n".join(clip_lines) + "\n")
    (OUT / "bert.jsonl").write_text("\n".join(bert_lines) + "\n")
    print(f"{len(clip_lines)} prompts, {special} with a special token of either family")


if __name__ == "__main__":
    main()
