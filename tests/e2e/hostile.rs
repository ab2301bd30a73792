//! Peers that lie, stall or speak nonsense: others do not notice. Slow ones get what they were
//! promised.

use std::net::SocketAddr;

use bytes::BytesMut;
use sprat::engine::{AddTorrent, Bitfield, Event, InfoHash, Metainfo};
use sprat::proto::block::BLOCK_LEN;
use sprat::proto::peer_id::PeerId;
use sprat::proto::wire::decoder::{Decoder, Frame};
use sprat::proto::wire::handshake::{Capabilities, HANDSHAKE_LEN, Handshake};
use sprat::proto::wire::message::{Message, block_header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::engine::{Content, addr, engine, event, seed, within};

fn greeting(infohash: InfoHash) -> [u8; HANDSHAKE_LEN] {
    let peer_id = PeerId(*b"-XX0000-abcdefghijkl");
    Handshake { capabilities: Capabilities::default(), infohash, peer_id }.encode()
}

async fn send(socket: &mut TcpStream, messages: &[Message]) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    for message in messages {
        message.encode(&mut bytes);
    }
    socket.write_all(&bytes).await
}

/// Says that it has everything, and answers every request with zeros.
async fn lie(mut socket: TcpStream, metainfo: &Metainfo) -> std::io::Result<()> {
    let piece_count = metainfo.info.geometry.piece_count();
    socket.write_all(&greeting(metainfo.info.infohash)).await?;
    socket.read_exact(&mut [0; HANDSHAKE_LEN]).await?;
    send(&mut socket, &[Message::Bitfield(Bitfield::full(piece_count)), Message::Unchoke]).await?;
    let (mut decoder, mut buffer) = (Decoder::new(piece_count), BytesMut::new());
    loop {
        while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
            if let Frame::Message(Message::Request(block)) = frame {
                socket.write_all(&block_header(block)).await?;
                socket.write_all(&vec![0; block.len as usize]).await?;
            }
        }
        if socket.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn a_liar_is_banned_and_the_content_is_whole() {
    let content = Content::new(&[("file", 2_000_000)]);
    let (seeder, leecher) = (engine().await, engine().await);
    let _seed = seed(&seeder, &content).await;
    // Of the honest seed's host, which the ban spares.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let liar: SocketAddr = listener.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let story = async {
        let download = AddTorrent { peers: vec![liar], ..content.download(dir.path()) };
        let mut torrent = leecher.add(download).await.unwrap();
        event(&mut torrent, |event| matches!(event, Event::PieceFailed(_))).await;
        torrent.add_peers(vec![addr(&seeder)]).await.unwrap();
        event(&mut torrent, |event| *event == Event::PeerBanned(liar)).await;
        within(torrent.completed()).await.unwrap();
    };
    let lying = async {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            // That we hang up on it is no error.
            let _ = lie(socket, &content.metainfo).await;
        }
    };
    tokio::select! {
        () = story => {}
        () = lying => {}
    }
    content.assert_same(dir.path());
}

#[tokio::test]
async fn a_peer_that_asks_and_does_not_read_holds_nobody_up() {
    let content = Content::new(&[("file", 8_000_000)]);
    let (seeder, leecher) = (engine().await, engine().await);
    let mut seed = seed(&seeder, &content).await;
    let mut stalled = TcpStream::connect(addr(&seeder)).await.unwrap();
    stalled.write_all(&greeting(content.metainfo.info.infohash)).await.unwrap();
    let geometry = content.metainfo.info.geometry;
    let blocks = (0..geometry.piece_count()).map(|piece| geometry.block(piece, 0));
    let requests = blocks.map(Message::Request);
    send(&mut stalled, &[Message::Interested]).await.unwrap();
    send(&mut stalled, &requests.collect::<Vec<_>>()).await.unwrap();
    event(&mut seed, |event| matches!(event, Event::PeerConnected(_))).await;
    let dir = tempfile::tempdir().unwrap();
    let download = AddTorrent { peers: vec![addr(&seeder)], ..content.download(dir.path()) };
    let mut torrent = leecher.add(download).await.unwrap();
    within(torrent.completed()).await.unwrap();
    content.assert_same(dir.path());
}

#[tokio::test]
async fn nonsense_ends_its_connection_and_nothing_else() {
    let content = Content::new(&[("file", 100_000)]);
    let (seeder, leecher) = (engine().await, engine().await);
    let _seed = seed(&seeder, &content).await;
    let ours = greeting(content.metainfo.info.infohash);
    let too_long = [&ours[..], &(BLOCK_LEN * 4).to_be_bytes(), &[7]].concat();
    let elsewhere = greeting(InfoHash([9; 20])).to_vec();
    for nonsense in [vec![b'x'; 68], elsewhere, too_long, [&ours[..], &[0, 0, 0, 1, 99]].concat()] {
        let mut socket = TcpStream::connect(addr(&seeder)).await.unwrap();
        socket.write_all(&nonsense).await.unwrap();
        // It ends, by a clean close or a reset.
        let _ = within(socket.read_to_end(&mut Vec::new())).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let download = AddTorrent { peers: vec![addr(&seeder)], ..content.download(dir.path()) };
    let mut torrent = leecher.add(download).await.unwrap();
    within(torrent.completed()).await.unwrap();
    content.assert_same(dir.path());
}

#[tokio::test]
async fn a_seed_that_leaves_does_not_take_back_what_is_on_its_way() {
    let content = Content::new(&[("file", 300_000)]);
    let seeder = engine().await;
    let seeding = AddTorrent { ratio_max: Some(1.0), ..content.seed() };
    let mut seed = seeder.add(seeding).await.unwrap();
    within(seed.completed()).await.unwrap();
    let mut slow = TcpStream::connect(addr(&seeder)).await.unwrap();
    slow.write_all(&greeting(content.metainfo.info.infohash)).await.unwrap();
    send(&mut slow, &[Message::Interested]).await.unwrap();
    let geometry = content.metainfo.info.geometry;
    let mut head = BytesMut::new();
    let mut decoder = Decoder::new(geometry.piece_count());
    slow.read_exact(&mut [0; HANDSHAKE_LEN]).await.unwrap();
    loop {
        match decoder.decode(&mut head).unwrap() {
            Some(Frame::Message(Message::Unchoke)) => break,
            Some(_) => {}
            None => assert_ne!(within(slow.read_buf(&mut head)).await.unwrap(), 0),
        }
    }
    let pieces = 0..geometry.piece_count();
    let blocks = pieces.flat_map(|piece| {
        (0..geometry.block_count(piece)).map(move |index| Message::Request(geometry.block(piece, index)))
    });
    send(&mut slow, &blocks.collect::<Vec<_>>()).await.unwrap();
    within(async {
        while seed.snapshot().torrent.traffic.uploaded < geometry.total_len() {
            assert!(seed.changed().await);
        }
    })
    .await;
    send(&mut slow, &[Message::KeepAlive]).await.unwrap();
    let mut rest = Vec::new();
    within(slow.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.len() as u64 >= geometry.total_len(), "{} bytes came", rest.len());
    drop(slow);
    event(&mut seed, |event| *event == Event::Stopped).await;
}
