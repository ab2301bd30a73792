//! Decodes KRPC datagrams: one pass over each dictionary, without copying values.

use super::super::item::ItemRef;
use super::super::node_id::NodeId;
use super::{
    Body, FILTER_LEN, ID_LEN, KrpcError, Message, Method, Query, Response, TRANSACTION_LEN_MAX, Want, address,
};
use crate::proto::bencode::{Dict, Limits, List, Value};

/// Decodes a datagram.
///
/// # Errors
/// It is invalid bencode within limits (64 KiB, depth 8, 256 tokens), has no `t` or `y`, or lacks a
/// key that its kind requires.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, KrpcError> {
    let root = Value::read(bytes, &Limits::KRPC).map_err(|error| KrpcError(error.what))?;
    let envelope = Envelope::read(root.dict().ok_or(KrpcError("it is not a dictionary"))?);
    let transaction = envelope.transaction.ok_or(KrpcError("there is no transaction id"))?;
    if transaction.len() > TRANSACTION_LEN_MAX {
        return Err(KrpcError("the transaction id is too long"));
    }
    let body = match envelope.kind {
        Some(b"q") => Body::Query(envelope.query()?),
        Some(b"r") => Body::Response(response(required(envelope.answer, "there is no answer")?)?),
        Some(b"e") => {
            let mut error = required(envelope.error, "there is no error")?;
            let code = required(error.next().and_then(|code| code.integer()), "the error has no code")?;
            Body::Error(code, error.next().and_then(|text| text.bytes()).unwrap_or_default())
        }
        Some(_) | None => return Err(KrpcError("it is no query, answer or error")),
    };
    Ok(Message { transaction, body, external: envelope.external.and_then(address) })
}

fn required<T>(value: Option<T>, what: &'static str) -> Result<T, KrpcError> {
    value.ok_or(KrpcError(what))
}

/// The keys that any message may have.
#[derive(Default)]
struct Envelope<'a> {
    transaction: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    method: Option<&'a [u8]>,
    arguments: Option<Dict<'a>>,
    answer: Option<Dict<'a>>,
    error: Option<List<'a>>,
    external: Option<&'a [u8]>,
    read_only: bool,
}

impl<'a> Envelope<'a> {
    fn read(root: Dict<'a>) -> Self {
        let mut envelope = Self::default();
        for (key, value) in root {
            match key {
                b"t" => envelope.transaction = value.bytes(),
                b"y" => envelope.kind = value.bytes(),
                b"q" => envelope.method = value.bytes(),
                b"a" => envelope.arguments = value.dict(),
                b"r" => envelope.answer = value.dict(),
                b"e" => envelope.error = value.list(),
                b"ip" => envelope.external = value.bytes(),
                b"ro" => envelope.read_only = flag(&value),
                _ => (),
            }
        }
        envelope
    }

    fn query(&self) -> Result<Query<'a>, KrpcError> {
        let arguments = Arguments::read(required(self.arguments, "the query has no arguments")?);
        let method = required(self.method, "the query has no method")?;
        Ok(Query {
            id: required(arguments.id, "the query has no id")?,
            read_only: self.read_only,
            method: arguments.method(method)?,
        })
    }
}

/// The arguments of every query.
#[derive(Default)]
struct Arguments<'a> {
    id: Option<NodeId>,
    target: Option<NodeId>,
    infohash: Option<NodeId>,
    want: Want,
    scrape: bool,
    no_seed: bool,
    seed: bool,
    port: Option<u16>,
    implied_port: bool,
    token: Option<&'a [u8]>,
    cas: Option<i64>,
    item: ItemKeys<'a>,
}

impl<'a> Arguments<'a> {
    fn read(dict: Dict<'a>) -> Self {
        let mut read = Self::default();
        for (key, value) in dict {
            match key {
                b"id" => read.id = id(&value),
                b"target" => read.target = id(&value),
                b"info_hash" => read.infohash = id(&value),
                b"want" => read.want = want(&value),
                b"scrape" => read.scrape = flag(&value),
                b"noseed" => read.no_seed = flag(&value),
                b"seed" => read.seed = flag(&value),
                b"port" => read.port = value.integer().and_then(|port| u16::try_from(port).ok()),
                b"implied_port" => read.implied_port = flag(&value),
                b"token" => read.token = value.bytes(),
                b"cas" => read.cas = value.integer(),
                _ => read.item.read(key, &value),
            }
        }
        read
    }

    fn method(&self, name: &[u8]) -> Result<Method<'a>, KrpcError> {
        let target = || required(self.target, "the query has no target");
        let infohash = || required(self.infohash, "the query has no infohash");
        let token = || required(self.token, "the query has no token");
        let want = self.want;
        Ok(match name {
            b"ping" => Method::Ping,
            b"find_node" => Method::FindNode { target: target()?, want },
            b"get_peers" => {
                Method::GetPeers { infohash: infohash()?, want, scrape: self.scrape, no_seed: self.no_seed }
            }
            b"announce_peer" => Method::AnnouncePeer {
                infohash: infohash()?,
                port: self.announced_port()?,
                token: token()?,
                seed: self.seed,
            },
            b"get" => Method::Get { target: target()?, seq: self.item.seq, want },
            b"put" => Method::Put {
                token: token()?,
                cas: self.cas,
                item: required(self.item.item(), "the query has no whole item")?,
            },
            b"sample_infohashes" => Method::SampleInfohashes { target: target()?, want },
            _ => Method::Unknown { target: self.target.or(self.infohash) },
        })
    }

    /// The port that a peer announces; `None` for that of the datagram.
    fn announced_port(&self) -> Result<Option<u16>, KrpcError> {
        match self.port {
            _ if self.implied_port => Ok(None),
            Some(port) if port != 0 => Ok(Some(port)),
            Some(_) | None => Err(KrpcError("the query has no port")),
        }
    }
}

fn response(dict: Dict<'_>) -> Result<Response<'_>, KrpcError> {
    let (mut own, mut nodes, mut nodes6) = (None, None, None);
    let (mut token, mut values) = (None, None);
    let (mut filters, mut samples) = ((None, None), (None, None));
    let mut keys = ItemKeys::default();
    for (key, value) in dict {
        match key {
            b"id" => own = id(&value),
            b"nodes" => nodes = value.bytes(),
            b"nodes6" => nodes6 = value.bytes(),
            b"token" => token = value.bytes(),
            b"values" => values = value.list(),
            b"BFsd" => filters.0 = sized::<FILTER_LEN>(&value),
            b"BFpe" => filters.1 = sized::<FILTER_LEN>(&value),
            b"samples" => samples.0 = value.bytes().filter(|samples| samples.len() % ID_LEN == 0),
            b"num" => samples.1 = value.integer(),
            _ => keys.read(key, &value),
        }
    }
    let item = keys.item();
    Ok(Response {
        id: required(own, "the answer has no id")?,
        nodes: nodes.unwrap_or_default(),
        nodes6: nodes6.unwrap_or_default(),
        token,
        values,
        filters: filters.0.zip(filters.1),
        samples: samples.0.map(|ids| (ids, samples.1.unwrap_or((ids.len() / ID_LEN) as i64))),
        item,
        seq: if item.is_some() { None } else { keys.seq },
    })
}

/// The keys of an item (BEP 44).
#[derive(Default)]
struct ItemKeys<'a> {
    value: Option<&'a [u8]>,
    public_key: Option<&'a [u8; 32]>,
    salt: Option<&'a [u8]>,
    seq: Option<i64>,
    signature: Option<&'a [u8; 64]>,
}

impl<'a> ItemKeys<'a> {
    fn read(&mut self, key: &[u8], value: &Value<'a>) {
        match key {
            b"v" => self.value = Some(value.span()),
            b"k" => self.public_key = sized(value),
            b"salt" => self.salt = value.bytes(),
            b"seq" => self.seq = value.integer(),
            b"sig" => self.signature = sized(value),
            _ => (),
        }
    }

    /// Returns the item: a value alone, or with all keys of a mutable one.
    fn item(&self) -> Option<ItemRef<'a>> {
        let value = self.value?;
        let immutable = ItemRef { value, public_key: None, salt: &[], seq: 0, signature: None };
        let Some(public_key) = self.public_key else { return Some(immutable) };
        Some(ItemRef {
            value,
            public_key: Some(public_key),
            salt: self.salt.unwrap_or_default(),
            seq: self.seq?,
            signature: Some(self.signature?),
        })
    }
}

fn id(value: &Value<'_>) -> Option<NodeId> {
    sized(value).copied().map(NodeId)
}

/// Returns a string of exactly this length.
fn sized<'a, const LEN: usize>(value: &Value<'a>) -> Option<&'a [u8; LEN]> {
    value.bytes()?.try_into().ok()
}

fn flag(value: &Value<'_>) -> bool {
    value.integer().is_some_and(|flag| flag != 0)
}

fn want(value: &Value<'_>) -> Want {
    value.list().into_iter().flatten().fold(Want::default(), |want, family| match family.bytes() {
        Some(b"n4") => Want { v4: true, ..want },
        Some(b"n6") => Want { v6: true, ..want },
        Some(_) | None => want,
    })
}
