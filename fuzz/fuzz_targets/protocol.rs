//! The sockets between `api` and `host`: any bytes are frames that are read, or refused, and what was read is what is sent.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pilotlight_node_agent::network_protocol;
use pilotlight_node_agent::protocol::{MAX_FRAME_BYTES, Request, Response, codec};
use tokio_util::codec::Decoder;

fuzz_target!(|data: &[u8]| {
    // As one frame, so that a mutation need not find its length first.
    frame(data);
    // As what arrives on the socket: frames, and at its end a part of one.
    let mut codec = codec();
    let mut arrived = BytesMut::from(data);
    while let Ok(Some(cut)) = codec.decode(&mut arrived) {
        assert!(cut.len() <= MAX_FRAME_BYTES);
        frame(&cut);
    }
});

fn frame(bytes: &[u8]) {
    if let Ok(request) = Request::read(bytes)
        && let Ok(sent) = serde_json::to_vec(&request)
    {
        assert_eq!(Request::read(&sent).ok(), Some(request));
    }
    if let Ok(request) = network_protocol::Request::read(bytes)
        && let Ok(sent) = serde_json::to_vec(&request)
    {
        assert_eq!(network_protocol::Request::read(&sent).ok(), Some(request));
    }
    if let Ok(response) = serde_json::from_slice::<network_protocol::Response>(bytes)
        && let Ok(sent) = serde_json::to_vec(&response)
    {
        assert_eq!(serde_json::from_slice(&sent).ok(), Some(response));
    }
    if let Ok(response) = serde_json::from_slice::<Response>(bytes)
        && let Ok(sent) = serde_json::to_vec(&response)
    {
        assert_eq!(serde_json::from_slice(&sent).ok(), Some(response));
    }
}
