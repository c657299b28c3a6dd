//! The languages whose words the guard knows.

/// A language of questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// English.
    English,
    /// Spanish.
    Spanish,
}

impl Language {
    /// Every language, in the order of their word lists.
    pub const ALL: [Language; 2] = [Language::English, Language::Spanish];

    /// Its two letters in ISO 639-1.
    pub fn code(self) -> &'static str {
        match self {
            Language::English => "en",
            Language::Spanish => "es",
        }
    }

    /// The place of the language's words in tables.
    pub(super) fn index(self) -> usize {
        match self {
            Language::English => 0,
            Language::Spanish => 1,
        }
    }
}
