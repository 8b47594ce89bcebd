//! What one pod was answered lately: a question that is asked again costs neither a server nor an opening. Used by [`super::pod`].
//!
//! Every pod has its own, so that none can tell from the time of an answer what another one asked, and none can fill another's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};

use super::answer::Told;
use super::query::Question;

/// Answers kept of one pod. Programs ask for few names again and again; 64 of the largest are about 100 KiB.
const MAX_KEPT: usize = 64;
/// Most records of an answer that is kept.
const MAX_RECORDS: usize = 16;

/// The answers.
#[derive(Debug, Default)]
pub struct Kept {
    answers: BTreeMap<(Name, RecordType), Answer>,
    /// How often they were forgotten. What was asked before the last time is not kept.
    age: u64,
}

#[derive(Debug)]
struct Answer {
    code: ResponseCode,
    records: Vec<Record>,
    /// When its addresses were opened: they are for longer than its records are good.
    since: Instant,
    until: Instant,
}

impl Kept {
    /// What [`Kept::keep`] must be told of an answer to a question that is asked now.
    pub fn age(&self) -> u64 {
        self.age
    }

    /// The answer to a question, if it is known, with the time that is left of its records.
    pub fn answer(&self, question: &Question, now: Instant) -> Option<Message> {
        let kept = self
            .answers
            .get(&key(question))
            .filter(|kept| now < kept.until)?;
        let elapsed = now.saturating_duration_since(kept.since).as_secs();
        let elapsed = u32::try_from(elapsed).unwrap_or(u32::MAX);
        let mut message = question.answer(kept.code);
        for record in &kept.records {
            let mut record = record.clone();
            record.ttl = record.ttl.saturating_sub(elapsed);
            if record.name == question.name {
                // As it is asked now, in whatever case.
                record.name.clone_from(&question.name);
            }
            message.add_answer(record);
        }
        Some(message)
    }

    /// Keeps an answer whose addresses were opened at `since`, unless everything was forgotten after it was asked for at `age`.
    pub fn keep(&mut self, question: &Question, told: &Told, age: u64, since: Instant) {
        let records = &told.message.answers;
        if age != self.age || told.good_for == 0 || records.len() > MAX_RECORDS {
            return;
        }
        if self.answers.len() >= MAX_KEPT {
            self.answers.retain(|_, kept| since < kept.until);
        }
        if self.answers.len() >= MAX_KEPT {
            let first = self.answers.iter().min_by_key(|(_, kept)| kept.until);
            if let Some(key) = first.map(|(key, _)| key.clone()) {
                self.answers.remove(&key);
            }
        }
        let answer = Answer {
            code: told.message.metadata.response_code,
            records: records.clone(),
            since,
            until: since + Duration::from_secs(told.good_for.into()),
        };
        self.answers.insert(key(question), answer);
    }

    /// What the pod may reach, or what is open to it, is another now.
    pub fn forget(&mut self) {
        self.answers.clear();
        self.age += 1;
    }
}

fn key(question: &Question) -> (Name, RecordType) {
    (question.name.to_lowercase(), question.kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::RData;

    fn question(name: &str) -> Question {
        Question {
            id: 3,
            name: Name::from_ascii(name).unwrap(),
            kind: RecordType::A,
            recursion: true,
            payload: (512, false),
        }
    }

    fn told(question: &Question, ttl: u32) -> Told {
        let mut message = question.answer(ResponseCode::NoError);
        let data = RData::A(std::net::Ipv4Addr::new(192, 0, 2, 1).into());
        message.add_answer(Record::from_rdata(question.name.clone(), ttl, data));
        Told {
            message,
            openings: Vec::new(),
            withheld: 0,
            good_for: ttl,
        }
    }

    #[test]
    fn an_answer_is_given_again_as_long_as_it_is_good_and_says_what_is_left_of_it() {
        let start = Instant::now();
        let mut kept = Kept::default();
        let asked = question("a.org.");
        kept.keep(&asked, &told(&asked, 10), kept.age(), start);
        let mut again = question("A.oRg.");
        again.id = 9;
        let message = kept
            .answer(&again, start + Duration::from_millis(4500))
            .unwrap();
        assert_eq!(message.metadata.id, 9);
        assert_eq!(message.queries[0].name().to_ascii(), "A.oRg.");
        assert_eq!(message.answers[0].name.to_ascii(), "A.oRg.");
        assert_eq!(message.answers[0].ttl, 6);
        let late = start + Duration::from_secs(10);
        assert!(kept.answer(&again, late).is_none());
        assert!(kept.answer(&question("b.org."), start).is_none());
        again.kind = RecordType::AAAA;
        assert!(kept.answer(&again, start).is_none());
    }

    #[test]
    fn what_was_asked_before_everything_was_forgotten_is_not_kept() {
        let start = Instant::now();
        let mut kept = Kept::default();
        let asked = question("a.org.");
        let age = kept.age();
        kept.keep(&asked, &told(&asked, 10), age, start);
        kept.forget();
        assert!(kept.answer(&asked, start).is_none());
        kept.keep(&asked, &told(&asked, 10), age, start);
        assert!(kept.answer(&asked, start).is_none());
        kept.keep(&asked, &told(&asked, 0), kept.age(), start);
        assert!(kept.answer(&asked, start).is_none(), "good for no time");
    }

    #[test]
    fn it_does_not_grow_and_keeps_what_is_good_for_longest() {
        let start = Instant::now();
        let mut kept = Kept::default();
        for n in 0..1000 {
            let asked = question(&format!("n{n}.org."));
            kept.keep(&asked, &told(&asked, 10 + n), kept.age(), start);
        }
        assert_eq!(kept.answers.len(), MAX_KEPT);
        assert!(kept.answer(&question("n999.org."), start).is_some());
        assert!(kept.answer(&question("n1.org."), start).is_none());
        let mut large = told(&question("large.org."), 10_000);
        let record = large.message.answers[0].clone();
        large.message.add_answers(vec![record; MAX_RECORDS]);
        kept.keep(&question("large.org."), &large, kept.age(), start);
        assert!(kept.answer(&question("large.org."), start).is_none());
    }
}
