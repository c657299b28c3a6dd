"""Makes the golden vectors that the encoder is held against.

    python make_golden.py MODEL_DIR NAME

writes, beside this repository's other test data (tests/data/golden):
  texts.jsonl   200 texts, {"id", "lang", "text"}; written for this project, CC0
  NAME.f32      their vectors by sentence-transformers: 200 rows of little-endian f32
  NAME.json     dimension, SHA-256 of the weights, versions of the libraries

Needs: sentence-transformers, numpy. Each text is embedded alone, on the CPU, in f32. A directory without modules.json is
taken as a transformer with mean pooling and normalization, which is what the e5 family is.
"""

import hashlib
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "data" / "golden"

SENTENCES = {
    "es": [
        "Camiseta de algodón orgánico con cuello redondo, talla M, color azul marino.",
        "¿Cuánto tarda en llegar un pedido a las Islas Canarias?",
        "El niño pidió una pizza de piña y su hermana, un café con leche.",
        "Cafetera italiana de aluminio para seis tazas, apta para vitrocerámica pero no para inducción.",
        "No puedo iniciar sesión en mi cuenta desde que cambié la contraseña.",
        "Aceite de oliva virgen extra, botella de 750 ml, primera presión en frío.",
        "Quiero devolver unos zapatos del número 42 porque me quedan pequeños.",
        "Año nuevo, precios nuevos: hasta un 30 % de descuento en electrónica.",
        "La lavadora hace un ruido extraño al centrifugar y no desagua bien.",
        "Mochila impermeable de 25 litros con compartimento para portátil de 15,6 pulgadas.",
        "Mi tarjeta fue rechazada dos veces, pero el cargo aparece en el banco.",
        "Zumo de naranja natural sin azúcares añadidos.",
    ],
    "en": [
        "Stainless steel water bottle, 500 ml, keeps drinks cold for 24 hours.",
        "Where is my parcel? The tracking page has not changed since Monday.",
        "The quick brown fox jumps over the lazy dog near the river bank.",
        "Please cancel order #A-10293 and refund the amount to my original payment method.",
        "A lightweight running shoe with a breathable upper and a carbon-infused plate.",
        "How do I reset the password of my account if I no longer have that phone?",
        "Gluten-free oat cookies with dark chocolate chips, pack of 12.",
        "USB-C to HDMI 2.1 cable, 2 m, supports 4K at 120 Hz and 8K at 60 Hz.",
        "fn main() { println!(\"{}\", 1 + 1); } // prints 2",
        "The warranty does not cover damage caused by water, drops or unauthorised repairs.",
    ],
    "pt": [
        "Quero saber se esta panela de pressão funciona em fogão de indução.",
        "A encomenda chegou amassada e falta o carregador.",
        "Pão de queijo congelado, embalagem de 1 kg.",
    ],
    "fr": [
        "Où puis-je trouver la facture de ma dernière commande ?",
        "Fromage de chèvre affiné, cœur crémeux, élevé à l'air libre.",
        "Le remboursement a été effectué, mais le montant n'est pas le bon.",
    ],
    "de": [
        "Die Lieferung verzögert sich wegen des Feiertags um zwei Werktage.",
        "Größentabelle für Wanderschuhe: bitte messen Sie Ihre Füße am Abend.",
        "Donaudampfschifffahrtsgesellschaftskapitän ist ein sehr langes Wort.",
    ],
    "it": ["Vorrei cambiare l'indirizzo di spedizione prima che il pacco parta.", "Pasta di grano duro trafilata al bronzo, 500 g."],
    "ca": ["El paquet no ha arribat i ningú no respon al telèfon d'atenció al client.", "Samarreta de màniga llarga per a nens, col·lecció de tardor."],
    "zh": ["这款手机支持双卡双待吗？", "请问这件衣服什么时候有货，可以退换吗？"],
    "ja": ["この商品はいつ届きますか。", "サイズが合わなかったので、返品したいです。"],
    "ar": ["متى سيصل طلبي؟", "أريد استرداد المبلغ لأن المنتج معيب."],
    "ru": ["Когда привезут мой заказ? Я жду уже вторую неделю.", "Чайник электрический, 1,7 литра, с подсветкой."],
    "el": ["Πότε θα παραλάβω την παραγγελία μου;", "Ελαιόλαδο εξαιρετικό παρθένο, ένα λίτρο."],
    "hi": ["मेरा ऑर्डर कब आएगा?", "यह जूता मुझे छोटा है, क्या मैं इसे बदल सकता हूँ?"],
    "ko": ["주문한 상품이 아직 도착하지 않았어요."],
    "tr": ["İade etmek istediğim ürünün kutusu yırtılmış, sorun olur mu?"],
}

ODD = [
    "a", "Z", "7", "ñ", "¿?", "!", "...", "🦜", "👩‍👩‍👧‍👦", "€", "\u200b x", "an\u0303o", "A\u030angstro\u0308m", "  two  spaces  ",
    "tab\tand\nnewline", "MAYÚSCULAS SIN FIN", "SKU-000123/45_B", "3,14159", "1.234.567,89 €", "50%", "http://example.com/a?b=c&d=e",
    "user@example.com", "C++ vs C#", "x" * 120, "lorem" * 40, "¡¡¡OFERTA!!! 2x1", "ﬁne ﬂow ½ ²", "ＡＢＣ１２３", "ß ẞ ss", "\u00a0nbsp\u00a0",
    "<b>negrita</b> &amp; más", "{\"sku\": 42, \"precio\": 9.99}", "SELECT * FROM productos WHERE precio < 10;", "𝓕𝓪𝓷𝓬𝔂", "ⅷ", "🇪🇸🇲🇽🇦🇷",
]


def texts():
    """200 texts: odd ones, single sentences, and runs of sentences up to some 600 word pieces."""
    pool = [(lang, s) for lang, sentences in SENTENCES.items() for s in sentences]
    rows = [("und", text) for text in ODD] + pool
    rng = random.Random(20260101)
    while len(rows) < 200:
        # Half of the rest stays under 128 word pieces, the other half crosses 128, 256 and 512.
        target = rng.choice([40, 80, 110, 180, 300, 500, 800, 1200, 1500])
        lang = rng.choice(["es", "es", "es", "en", "en", "mixed", "mixed"])
        source = pool if lang == "mixed" else [p for p in pool if p[0] == lang]
        text = ""
        while len(text) < target:
            text += (" " if text else "") + rng.choice(source)[1]
        rows.append((lang, text))
    return [{"id": n, "lang": lang, "text": text} for n, (lang, text) in enumerate(rows)]


def load(directory):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    copy = Path(tempfile.mkdtemp()) / "model"
    shutil.copytree(directory, copy)
    if (copy / "modules.json").exists():
        # The folder of a module without settings may be missing; the loader wants to see it.
        for module in json.loads((copy / "modules.json").read_text()):
            (copy / module["path"]).mkdir(exist_ok=True)
        return SentenceTransformer(str(copy), device="cpu")
    if not (copy / "tokenizer_config.json").exists():
        # Without it the loader takes the tokenizer of the architecture instead of the one in tokenizer.json.
        special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
        (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    transformer = Transformer(str(copy), max_seq_length=512)
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    return SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")


def main():
    directory, name = Path(sys.argv[1]), sys.argv[2]
    import numpy
    import sentence_transformers
    import torch
    import transformers

    OUT.mkdir(parents=True, exist_ok=True)
    rows = texts()
    with open(OUT / "texts.jsonl", "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    model = load(directory).float().eval()
    counts = [len(model.tokenizer(row["text"])["input_ids"]) for row in rows]
    vectors = numpy.stack([model.encode(row["text"], batch_size=1, prompt="") for row in rows]).astype("<f4")
    vectors.tofile(OUT / f"{name}.f32")
    about = {
        "dim": vectors.shape[1],
        "rows": len(rows),
        "max_seq_length": model.max_seq_length,
        "tokens_min": min(counts),
        "tokens_max": max(counts),
        "weights_sha256": hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest(),
        "sentence_transformers": sentence_transformers.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    (OUT / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n")
    print(about, sorted(counts)[:: len(counts) // 10])


main()
