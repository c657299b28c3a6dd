//! What two sets of features conflict in. Each file compares one kind of feature; none allocates while it finds nothing.

mod classes;
mod comparison;
mod mentions;
mod negation;
mod order;
mod replaced_run;
mod shape;
mod things;
mod words;
mod written_form;

use super::conflict::Conflict;
use super::features::QuestionFeatures;
use super::lexicon::Lexicon;
use comparison::QuestionComparison;
use words::WordDifference;

/// The conflicts of two questions, one of a kind, the strongest first.
pub(super) fn conflicts<'a>(
    lexicon: &'a Lexicon,
    first: &'a QuestionFeatures,
    second: &'a QuestionFeatures,
) -> Vec<Conflict<'a>> {
    let mut comparison = QuestionComparison::new(lexicon, first, second);
    comparison.mentions();
    comparison.quotations();
    comparison.classes();
    comparison.shapes();
    comparison.written_forms();
    let difference = WordDifference::of(lexicon, first, second);
    comparison.negations(&difference);
    // Words of two languages cannot be compared one by one.
    if first.language == second.language {
        comparison.words(&difference);
        comparison.order(&difference);
    }
    comparison.sorted()
}
