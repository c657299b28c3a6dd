//! Closed lists of words of the contract. Metric labels, header values, JSON and the OpenAPI document take their words from
//! the one table of each list.

/// An enum whose variants are words of the contract; [`label_enum`] implements it.
pub trait Label: Copy + 'static {
    /// All variants, in the order of their declaration.
    const ALL: &'static [Self];

    /// The words of [`Label::ALL`].
    const WORDS: &'static [&'static str];

    /// The word of this variant.
    fn as_str(self) -> &'static str;
}

/// Declares an enum with a word for each variant: `Hit = "hit"`.
macro_rules! label_enum {
    (
        $(#[$meta:meta])*
        $visibility:vis enum $name:ident {
            $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $visibility enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $name {
            /// The word in metrics, headers and JSON.
            $visibility fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }
        }

        impl $crate::labels::Label for $name {
            const ALL: &'static [$name] = &[$($name::$variant,)+];
            const WORDS: &'static [&'static str] = &[$($word,)+];

            fn as_str(self) -> &'static str {
                $name::as_str(self)
            }
        }
    };
}

pub(crate) use label_enum;

#[cfg(test)]
mod tests {
    use super::*;

    label_enum! {
        /// Two variants.
        enum Color {
            /// The first.
            Red = "red",
            /// The second.
            DarkBlue = "dark_blue",
        }
    }

    #[test]
    fn variants_and_words_are_listed_in_the_same_order() {
        assert_eq!(Color::ALL, [Color::Red, Color::DarkBlue]);
        assert_eq!(Color::WORDS, ["red", "dark_blue"]);
        assert_eq!(Color::ALL.iter().map(|color| color.as_str()).collect::<Vec<_>>(), Color::WORDS);
    }
}
