"""Writes questions of a shop, each in four wordings, for `likewise evaluate answers` and `evaluate questions`.

    python3 tools/questions/generate.py --questions 2000 --seed 1 > questions.jsonl

Each line has `text`, and `answer`, which is the same for the wordings of one question. A question is an intent about a product;
half of them are English, half Spanish. The wordings were written for this file alone: no rule and no training pair was made from
them. `{p}` is the product with its article, `{b}` without.
"""

from __future__ import annotations

import argparse
import json
import random

ENGLISH_INTENTS = """
How long is the warranty on {p}? | What is the warranty period of {p}? | For how long is {p} under warranty? | {b}: how long does the warranty last?
Is {p} waterproof? | Can {p} get wet? | Does water damage {p}? | Does {p} resist water?
What colours does {p} come in? | Which colours can I get {p} in? | In what colours is {p} sold? | What are the colour options for {p}?
How much does {p} weigh? | What is the weight of {p}? | What does {p} weigh? | How heavy is {p}?
What are the dimensions of {p}? | How big is {p}? | What size is {p}? | What are the measurements of {p}?
How do I clean {p}? | What is the best way to clean {p}? | How should I wash {p}? | How can {p} be cleaned?
Which batteries does {p} need? | What batteries does {p} use? | What kind of batteries go into {p}? | What type of battery does {p} take?
Does {p} come with a charger? | Is a charger included with {p}? | Do I get a charger with {p}? | Is {p} sold with a charger?
Where is {p} made? | In which country is {p} made? | What is the country of origin of {p}? | Where does {p} get manufactured?
How do I assemble {p}? | How is {p} put together? | What are the steps to assemble {p}? | How do I put {p} together?
Can I use {p} outdoors? | Is {p} suitable for outdoor use? | Is it okay to use {p} outside? | Is {p} made for use outdoors?
How many people can use {p} at once? | How many people is {p} for? | For how many people is {p}? | How many users is {p} meant for?
What material is {p} made of? | What is {p} made from? | Which material is used for {p}? | What is the material of {p}?
Is {p} suitable for children? | Can children use {p}? | Is {p} safe for kids? | Is {p} okay for children?
How long does {p} take to charge? | What is the charging time of {p}? | How much time does it take to charge {p}? | How long do I need to charge {p}?
Does {p} need an internet connection? | Do I need internet to use {p}? | Does {p} work without internet? | Is an internet connection required for {p}?
How noisy is {p}? | How loud is {p}? | How much noise does {p} make? | What is the noise level of {p}?
How do I reset {p}? | How can I reset {p} to factory settings? | What do I do to reset {p}? | What is the way to reset {p}?
Are there spare parts for {p}? | Can I buy spare parts for {p}? | Do you sell spare parts for {p}? | Where can I get spare parts for {p}?
What accessories are available for {p}? | Which accessories exist for {p}? | What extras can I get for {p}? | Which accessories does {p} have?
"""

SPANISH_INTENTS = """
¿Cuánto dura la garantía de {p}? | ¿Qué garantía tiene {p}? | ¿De cuánto tiempo es la garantía de {p}? | ¿Cuánto tiempo tiene de garantía {p}?
¿Es resistente al agua {p}? | ¿Se puede mojar {p}? | ¿{p} resiste el agua? | ¿Aguanta el agua {p}?
¿En qué colores viene {p}? | ¿Qué colores hay de {p}? | ¿De qué colores está disponible {p}? | ¿Qué opciones de color tiene {p}?
¿Cuánto pesa {p}? | ¿Qué peso tiene {p}? | ¿Cuál es el peso de {p}? | ¿Es muy pesado {p}, cuánto pesa?
¿Qué medidas tiene {p}? | ¿Cuáles son las dimensiones de {p}? | ¿Qué dimensiones tiene {p}? | ¿Cuánto mide {p}?
¿Cómo se limpia {p}? | ¿Cómo puedo limpiar {p}? | ¿Cuál es la mejor forma de limpiar {p}? | ¿De qué manera se limpia {p}?
¿Qué pilas necesita {p}? | ¿Qué pilas usa {p}? | ¿Con qué pilas funciona {p}? | ¿Qué tipo de pilas lleva {p}?
¿{p} trae cargador? | ¿Viene con cargador {p}? | ¿Está incluido el cargador con {p}? | ¿Se incluye cargador con {p}?
¿Dónde se fabrica {p}? | ¿En qué país se fabrica {p}? | ¿De qué país es {p}? | ¿Cuál es el país de fabricación de {p}?
¿Cómo se monta {p}? | ¿Cómo puedo montar {p}? | ¿Qué pasos hay para montar {p}? | ¿De qué manera se monta {p}?
¿Se puede usar al aire libre {p}? | ¿{p} sirve para exterior? | ¿Puedo usar {p} fuera de casa? | ¿Es apto para exteriores {p}?
¿Para cuántas personas es {p}? | ¿Cuántas personas pueden usar {p}? | ¿Cuántas personas usan {p} a la vez? | ¿{p} es para cuántas personas?
¿De qué material es {p}? | ¿De qué está hecho {p}? | ¿Qué material tiene {p}? | ¿Con qué material está fabricado {p}?
¿Es apto para niños {p}? | ¿Pueden usar {p} los niños? | ¿{p} es seguro para niños? | ¿Sirve para niños {p}?
¿Cuánto tarda en cargarse {p}? | ¿Cuál es el tiempo de carga de {p}? | ¿Cuánto tiempo hay que cargar {p}? | ¿En cuánto tiempo se carga {p}?
¿{p} necesita conexión a internet? | ¿Hace falta internet para usar {p}? | ¿Se necesita internet con {p}? | ¿Requiere internet {p}?
¿Cuánto ruido hace {p}? | ¿Qué nivel de ruido tiene {p}? | ¿Es muy ruidoso {p}? | ¿Cuál es el ruido de {p}?
¿Cómo se restablece {p}? | ¿Cómo puedo restablecer {p}? | ¿Qué hay que hacer para restablecer {p}? | ¿De qué forma se restablece {p}?
¿Hay repuestos para {p}? | ¿Venden repuestos para {p}? | ¿Puedo comprar repuestos para {p}? | ¿Dónde consigo repuestos para {p}?
¿Qué accesorios hay para {p}? | ¿Qué accesorios tiene {p}? | ¿Cuáles son los accesorios de {p}? | ¿Qué accesorios existen para {p}?
"""

ENGLISH_PRODUCTS = """
coffee machine, electric kettle, air fryer, robot vacuum, desk lamp, camping tent, sleeping bag, garden hose, pressure washer, lawn mower,
cordless drill, circular saw, folding table, office chair, bunk bed, baby stroller, car seat, toy train, board game, electric guitar,
digital piano, bike helmet, mountain bike, electric scooter, treadmill, rowing machine, yoga mat, dumbbell set, smart watch, phone case,
wireless mouse, gaming keyboard, monitor stand, laptop bag, webcam, printer, router, projector, sound bar, pair of headphones,
rice cooker, stand mixer, juice press, toaster, dishwasher, washing machine, tumble dryer, steam iron, ceiling fan, space heater,
water filter, fish tank, dog bed, cat tree, bird feeder, raincoat, hiking boot, ski jacket, suitcase, travel pillow
"""

SPANISH_PRODUCTS = """
la cafetera, el hervidor eléctrico, la freidora de aire, el robot aspirador, la lámpara de mesa, la tienda de campaña, el saco de dormir,
la manguera de jardín, la hidrolimpiadora, el cortacésped, el taladro inalámbrico, la sierra circular, la mesa plegable, la silla de oficina,
la litera, el cochecito de bebé, la silla de coche, el tren de juguete, el juego de mesa, la guitarra eléctrica, el piano digital,
el casco de bicicleta, la bicicleta de montaña, el patinete eléctrico, la cinta de correr, la máquina de remo, la esterilla de yoga,
el juego de mancuernas, el reloj inteligente, la funda de móvil, el ratón inalámbrico, el teclado para juegos, el soporte de monitor,
la bolsa de portátil, la cámara web, la impresora, el router, el proyector, la barra de sonido, la arrocera, la batidora, el exprimidor,
la tostadora, el lavavajillas, la lavadora, la secadora, la plancha de vapor, el ventilador de techo, el calefactor, el filtro de agua,
el acuario, la cama para perros, el rascador para gatos, el comedero de pájaros, el impermeable, la bota de montaña, la chaqueta de esquí,
la maleta, la almohada de viaje, el juguete de madera
"""


def listed(text: str) -> list[str]:
    """The items of a list."""
    return [item.strip() for item in text.replace("\n", " ").split(",") if item.strip()]


def questions(intents: str, products: list[tuple[str, str]]) -> list[list[str]]:
    """Each intent about each product, as its wordings."""
    rows = [[part.strip() for part in line.split("|")] for line in intents.strip().splitlines()]
    filled = []
    for wordings in rows:
        for bare, with_article in products:
            texts = [text.replace("{p}", with_article).replace("{b}", bare) for text in wordings]
            texts = [text.replace(" de el ", " del ").replace(" a el ", " al ") for text in texts]
            # A wording may begin with the product, after the mark that opens a Spanish question.
            filled.append([capitalised(text) for text in texts])
    return filled


def capitalised(text: str) -> str:
    """The text with a first capital."""
    at = 1 if text.startswith("¿") else 0
    return text[:at] + text[at].upper() + text[at + 1 :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    english = questions(ENGLISH_INTENTS, [(name, f"the {name}") for name in listed(ENGLISH_PRODUCTS)])
    spanish = questions(SPANISH_INTENTS, [(name.split(" ", 1)[1], name) for name in listed(SPANISH_PRODUCTS)])
    half = arguments.questions // 2
    counts = [(english, arguments.questions - half), (spanish, half)]
    rng = random.Random(arguments.seed)
    for asked, count in counts:
        if count > len(asked):
            parser.error(f"at most {2 * len(asked)} questions")
        for wordings in rng.sample(asked, count):
            for text in wordings:
                print(json.dumps({"text": text, "answer": wordings[0]}, ensure_ascii=False))


if __name__ == "__main__":
    main()
