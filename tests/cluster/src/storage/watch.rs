//! What the API server says of claims and volumes: one `kubectl` for each, whose output is the stream of a watch. Called by
//! [`super::serve_storage`].

use std::io::BufReader;
use std::process::Stdio;
use std::sync::mpsc::Sender;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::apply::Api;
use crate::progress::say;

/// Between two attempts while the API server is away.
const RETRY: Duration = Duration::from_secs(1);

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// PersistentVolumeClaims.
    Claim,
    /// PersistentVolumes.
    Volume,
}

impl Kind {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Claim, Self::Volume];

    /// The kind of an object.
    pub(super) fn of(object: &Value) -> Option<Self> {
        match object["kind"].as_str()? {
            "PersistentVolumeClaim" => Some(Self::Claim),
            "PersistentVolume" => Some(Self::Volume),
            _ => None,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Claim => "/api/v1/persistentvolumeclaims?watch=true",
            Self::Volume => "/api/v1/persistentvolumes?watch=true",
        }
    }
}

/// What a watch tells.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    /// From here on it tells again all there is.
    Restarted(Kind),
    /// An object as it is now.
    There(Value),
    /// An object that was deleted.
    Gone(Value),
}

/// One line of a watch.
#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

impl Event {
    /// `None` for an error, after which the watch must begin anew.
    fn message(self) -> Option<Message> {
        match self.kind.as_str() {
            "ADDED" | "MODIFIED" => Some(Message::There(self.object)),
            "DELETED" => Some(Message::Gone(self.object)),
            _ => None,
        }
    }
}

/// Watches for as long as somebody listens.
pub(super) fn forever(api: &Api, kind: Kind, news: &Sender<Message>) {
    while news.send(Message::Restarted(kind)).is_ok() {
        // A watch without a version begins with all there is.
        let mut watch = api.watch(kind.path());
        match watch.stdin(Stdio::null()).stdout(Stdio::piped()).spawn() {
            Ok(mut child) => {
                if let Some(output) = child.stdout.take() {
                    forward(output, news);
                }
                // It ends by itself with its connection, but not after an answer that is no event.
                let _ended = child.kill();
                let _code = child.wait();
            }
            Err(error) => say(format_args!("cannot watch: {error}")),
        }
        std::thread::sleep(RETRY);
    }
}

fn forward(output: impl std::io::Read, news: &Sender<Message>) {
    let events = serde_json::Deserializer::from_reader(BufReader::new(output)).into_iter::<Event>();
    let messages = events.map_while(|event| event.ok()?.message());
    for message in messages {
        if news.send(message).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::mpsc;

    #[test]
    fn events_are_told_until_the_stream_breaks() {
        let (sender, news) = mpsc::channel();
        let stream = "{\"type\":\"ADDED\",\"object\":{\"a\":1}}\n{\"type\":\"DELETED\",\"object\":{}}\n\
                      {\"type\":\"ERROR\",\"object\":{}}\n{\"type\":\"ADDED\",\"object\":{}}\n";
        forward(stream.as_bytes(), &sender);
        forward("{\"type\":\"ADDED\",\"obj".as_bytes(), &sender);
        drop(sender);
        let told: Vec<_> = news.iter().collect();
        assert_eq!(
            told,
            [Message::There(json!({ "a": 1 })), Message::Gone(json!({}))]
        );
    }
}
