//! What the guard finds: kinds of conflicts, how strong they are, and which of them forbid that an answer is shared.

use serde::{Deserialize, Serialize};

use crate::labels::label_enum;

label_enum! {
    /// In what two questions conflict.
    #[derive(PartialOrd, Ord)]
    pub enum ConflictKind {
        /// Another number, or a number on one side only.
        Number = "number",
        /// Another unit or currency.
        Unit = "unit",
        /// Another day, month, year or time of day.
        Date = "date",
        /// Another version of something.
        Version = "version",
        /// Another size, colour or storage size.
        Variant = "variant",
        /// Another order number, article number, error code or identifier.
        Code = "code",
        /// Another sign: `<` against `>`, a minus on one side only.
        Sign = "sign",
        /// The same letters with other accents, or as a name: `año` and `ano`, `US` and `us`.
        Spelling = "spelling",
        /// Another quoted text.
        Quotation = "quotation",
        /// One is negated, the other is not.
        Negation = "negation",
        /// A word against its opposite.
        Antonym = "antonym",
        /// Another comparison: more against less, before against after.
        Comparator = "comparator",
        /// Another quantity of the same things: all, some, none, the first, the last.
        Quantifier = "quantifier",
        /// Permission against obligation or advice: `may I`, `must I`, `should I`.
        Modality = "modality",
        /// The other direction: from A to B, from B to A.
        Direction = "direction",
        /// Another person, place, company or product.
        Entity = "entity",
        /// Other persons act, or they act on others.
        Role = "role",
        /// Another plan or level of service.
        Plan = "plan",
        /// Another language is asked for.
        AnswerLanguage = "answer_language",
        /// Another form of the answer is asked for.
        AnswerFormat = "answer_format",
        /// One asks how something is done, the other asks to do it.
        Action = "action",
        /// One is about the present moment, the other is not.
        Freshness = "freshness",
        /// Another question word: when, where, who, how much.
        QuestionWord = "question_word",
        /// Another word in the same place.
        Substitution = "substitution",
    }
}

label_enum! {
    /// How sure a conflict is.
    #[derive(PartialOrd, Ord)]
    pub enum Strength {
        /// Seen often in questions that ask the same thing.
        Weak = "weak",
        /// More often than not another question.
        Strong = "strong",
        /// Another question.
        Certain = "certain",
    }
}

/// Which conflicts forbid that two questions share an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strictness {
    /// Certain ones.
    #[default]
    Normal,
    /// Also strong suspicions: for shops and banks, where a wrong answer costs more than a second call of the model.
    Strict,
}

impl Strictness {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Strictness::Normal => "normal",
            Strictness::Strict => "strict",
        }
    }

    /// Whether a conflict of this strength forbids that an answer is shared.
    pub fn forbids(self, strength: Strength) -> bool {
        match self {
            Strictness::Normal => strength >= Strength::Certain,
            Strictness::Strict => strength >= Strength::Strong,
        }
    }
}

/// A conflict between two questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict<'a> {
    /// In what they conflict.
    pub kind: ConflictKind,
    /// How sure it is.
    pub strength: Strength,
    /// The text of the first question. Empty if only the second one says something.
    pub first: &'a str,
    /// The text of the second question. Empty if only the first one says something.
    pub second: &'a str,
}
