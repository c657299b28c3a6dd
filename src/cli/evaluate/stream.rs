//! A cache of answers before a stream of questions, without a server: what is stored, and which stored answer each question gets.

use std::collections::HashSet;

use likewise::error::Result;
use likewise::matching::calibration::JudgedCandidate;
use likewise::matching::guard::Strictness;
use likewise::service::answers::Similarities;

use super::decision::Decision;
use super::judged_file::{JudgedFile, StreamRequest};
use super::pair_judge::PairJudge;

/// As the server: nearest questions that the rules look at, and those that the verifier reads.
const CANDIDATES_MAX: usize = 4;
const VERIFIED_MAX: usize = 2;

/// Which questions are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InsertPolicy {
    /// Those that were answered by the model, as the server does.
    OnMiss,
    /// Also those that were answered in other words, with the answer that they got.
    Always,
}

impl InsertPolicy {
    pub(super) const ALL: [InsertPolicy; 2] = [InsertPolicy::OnMiss, InsertPolicy::Always];

    pub(super) fn name(self) -> &'static str {
        match self {
            InsertPolicy::OnMiss => "on a miss",
            InsertPolicy::Always => "always",
        }
    }
}

/// Which stored questions a question is compared with.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamSearch {
    /// `None` to answer in the same words only.
    pub(super) decision: Option<Decision>,
    pub(super) similarities: Similarities,
    pub(super) policy: InsertPolicy,
}

/// What became of the questions of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct StreamTally {
    pub(super) requests: usize,
    /// Answered in the same words.
    pub(super) exact: usize,
    /// Answered in other words.
    pub(super) semantic: usize,
    /// Of all that were answered from the cache those whose right answer is known and another one.
    pub(super) wrong: usize,
    /// Questions to which the right answer was stored, under any words.
    pub(super) answerable: usize,
    /// Those of them that got it.
    pub(super) answered_right: usize,
}

/// The texts and their neighbours, for many streams.
pub(super) struct Stream<'a> {
    pub(super) requests: &'a [StreamRequest],
    /// Texts with the same number are one question.
    pub(super) words: &'a [usize],
    /// Other texts by similarity, the nearest first.
    pub(super) neighbours: &'a [Vec<(usize, f32)>],
}

impl Stream<'_> {
    /// Asks all questions in their order.
    pub(super) fn run(&self, search: StreamSearch, judge: &mut PairJudge<'_>) -> Result<StreamTally> {
        // By words: the answer that is stored, and the text under which.
        let mut stored: Vec<Option<(usize, Option<usize>)>> = vec![None; self.neighbours.len()];
        let mut answers = HashSet::new();
        let mut tally = StreamTally { requests: self.requests.len(), ..StreamTally::default() };
        for request in self.requests {
            let words = self.words[request.text];
            let is_answerable = request.answer.is_some_and(|answer| answers.contains(&answer));
            let same = stored[words].map(|(_, answer)| answer);
            let other = match (same, search.decision) {
                (None, Some(decision)) => self.candidate(decision, search, &stored, request.text, judge)?,
                _ => None,
            };
            let served = same.or(other);
            tally.exact += usize::from(same.is_some());
            tally.semantic += usize::from(other.is_some());
            let is_wrong = |answer: Option<usize>| {
                answer.zip(request.answer).is_some_and(|(served, right)| served != right)
            };
            tally.wrong += usize::from(served.is_some_and(is_wrong));
            tally.answerable += usize::from(is_answerable);
            tally.answered_right +=
                usize::from(is_answerable && served.is_some_and(|answer| !is_wrong(answer)));
            if served.is_none() || (same.is_none() && search.policy == InsertPolicy::Always) {
                stored[words] = Some((request.text, served.unwrap_or(request.answer)));
            }
            answers.extend(request.answer);
        }
        Ok(tally)
    }

    /// The stored text whose answer a question gets in other words, and that answer.
    fn candidate(
        &self,
        decision: Decision,
        search: StreamSearch,
        stored: &[Option<(usize, Option<usize>)>],
        asked: usize,
        judge: &mut PairJudge<'_>,
    ) -> Result<Option<Option<usize>>> {
        let language = judge.language(asked);
        let least = search.similarities.least();
        let is_near =
            |near: &&(usize, f32)| near.1 >= search.similarities.of_pair(language, judge.language(near.0));
        let is_stored = |near: &(usize, f32)| {
            let (text, answer) = stored[self.words[near.0]]?;
            (text == near.0).then_some((text, answer))
        };
        let near: Vec<&(usize, f32)> =
            self.neighbours[asked].iter().take_while(|near| near.1 >= least).filter(is_near).collect();
        let near = near.into_iter();
        let found = first_allowed(decision, near.filter_map(is_stored), |near| near.0, asked, judge)?;
        Ok(found.map(|(_, answer)| answer))
    }
}

/// The first of the nearest stored questions that a question shares its answer with.
fn first_allowed<T: Copy>(
    decision: Decision,
    near: impl Iterator<Item = T>,
    text_of: impl Fn(T) -> usize,
    asked: usize,
    judge: &mut PairJudge<'_>,
) -> Result<Option<T>> {
    let mut verified = 0;
    for candidate in near.take(CANDIDATES_MAX) {
        let stored = text_of(candidate);
        if !decision.passes_rules(judge, stored, asked) {
            continue;
        }
        if decision.allows(judge, stored, asked)? {
            return Ok(Some(candidate));
        }
        verified += 1;
        if verified == VERIFIED_MAX {
            break;
        }
    }
    Ok(None)
}

/// For each different question of a file the stored question whose answer it would be offered by rules and verifier, if every question
/// before it had been stored with its own right answer. One that comes again is no search.
pub(in crate::cli) fn warm_candidates(
    judge: &mut PairJudge<'_>,
    strictness: Strictness,
    similarity_min: f32,
    file: &JudgedFile,
) -> Result<Vec<Option<JudgedCandidate>>> {
    let decision = Decision::verified(strictness);
    let neighbours = judge.neighbours(similarity_min);
    let mut answers: Vec<Option<usize>> = vec![None; file.texts.len()];
    let mut offered = Vec::new();
    for request in &file.requests {
        let asked = request.text;
        if answers[asked].is_some() {
            continue;
        }
        let stored = neighbours[asked].iter().copied().filter(|near| answers[near.0].is_some());
        let found = first_allowed(decision, stored, |near| near.0, asked, judge)?;
        let candidate = match found {
            None => None,
            Some((stored, similarity)) => {
                let margin = judge.margin(stored, asked)?.unwrap_or_default();
                let features = judge.pair_features(stored, asked);
                let is_right = answers[stored] == request.answer;
                Some(JudgedCandidate { similarity, margin, features, is_right })
            }
        };
        answers[asked] = request.answer;
        offered.push(candidate);
    }
    Ok(offered)
}
