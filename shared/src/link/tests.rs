use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::*;
use crate::bundle::{PublicKey, SecretKey};
use crate::protocol::{Request, Response, VERSION};

const SOON: Duration = Duration::from_secs(20);

fn identity(n: u8) -> Identity {
    Identity::new(SecretKey::from_bytes([n; 32]))
}

fn only(key: PublicKey) -> Arc<dyn Peers> {
    Arc::new(move |other| other == key)
}

/// A door with key 1 that admits key 2, for one connection.
fn door() -> (u16, thread::JoinHandle<Result<Channel, ChannelError>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let handle = thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let connection = server(&identity(1), only(identity(2).public())).unwrap();
        let mut channel = Channel::open(connection, socket, SOON)?;
        while let Ok(request) = channel.receive::<Request>(SOON) {
            let answer = match request {
                Request::Hello { .. } => Response::Hello { version: VERSION },
                _ => Response::Done,
            };
            channel.send(&answer, SOON)?;
        }
        Ok(channel)
    });
    (port, handle)
}

fn connect(port: u16, as_whom: u8, expecting: u8) -> Result<Channel, ChannelError> {
    let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let connection = client(&identity(as_whom), only(identity(expecting).public())).unwrap();
    Channel::open(connection, socket, SOON)
}

#[test]
fn two_ends_that_know_each_other_talk() {
    let (port, door) = door();
    let mut channel = connect(port, 2, 1).unwrap();
    assert_eq!(channel.peer(), identity(1).public());
    let hello = Request::Hello { version: VERSION };
    for _ in 0..3 {
        let answer: Response = channel.ask(&hello, SOON).unwrap();
        assert_eq!(answer, Response::Hello { version: VERSION });
    }
    let ours = channel.exported().unwrap();
    channel.close();
    let theirs = door.join().unwrap().unwrap();
    assert_eq!(theirs.peer(), identity(2).public());
    assert_eq!(theirs.exported().unwrap(), ours);
}

#[test]
fn an_unpaired_client_is_refused() {
    let (port, door) = door();
    // In TLS 1.3 the client believes in the connection until it reads the refusal.
    let failed =
        connect(port, 3, 1).and_then(|mut channel| channel.ask::<_, Response>(&Request::Status, SOON));
    assert!(matches!(failed, Err(ChannelError::Refused(_) | ChannelError::Ended)), "{failed:?}");
    assert!(matches!(door.join().unwrap(), Err(ChannelError::Refused(_))));
}

#[test]
fn another_door_in_the_place_of_the_pinned_one_is_refused() {
    let (port, door) = door();
    assert!(matches!(connect(port, 2, 9), Err(ChannelError::Refused(_))));
    assert!(door.join().unwrap().is_err());
}

#[test]
fn nothing_older_than_tls_13_is_spoken() {
    // A ClientHello of TLS 1.2 with one common cipher suite and no extension.
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xC0, 0x2F, 1, 0]);
    let mut message = vec![1, 0, 0, hello.len() as u8];
    message.extend(hello);
    let mut record = vec![22, 3, 1, 0, message.len() as u8];
    record.extend(message);
    let (port, door) = door();
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.write_all(&record).unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    // An alert (21) of level fatal (2), and no ServerHello (22).
    assert_eq!((answer.first(), answer.get(5)), (Some(&21), Some(&2)), "{answer:?}");
    assert!(matches!(door.join().unwrap(), Err(ChannelError::Refused(_))));
}

/// Passes bytes on and keeps what the client sent.
fn recording_proxy(to: u16) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&kept);
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", to)).unwrap();
        let (mut back, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || {
            let _ = std::io::copy(&mut back, &mut to_client);
            let _ = to_client.shutdown(std::net::Shutdown::Both);
        });
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = client.read(&mut bytes) {
            own.lock().unwrap().extend_from_slice(&bytes[..count]);
            if server.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(std::net::Shutdown::Both);
    });
    (port, kept)
}

#[test]
fn a_recorded_session_cannot_be_played_again() {
    let (port, first) = door();
    let (proxy, kept) = recording_proxy(port);
    let mut channel = connect(proxy, 2, 1).unwrap();
    let answer: Response = channel.ask(&Request::Hello { version: VERSION }, SOON).unwrap();
    assert_eq!(answer, Response::Hello { version: VERSION });
    channel.close();
    first.join().unwrap().unwrap();

    let (port, second) = door();
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let recorded = kept.lock().unwrap().clone();
    assert!(recorded.len() > 300);
    socket.write_all(&recorded).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = socket.read_to_end(&mut Vec::new());
    assert!(second.join().unwrap().is_err(), "the door made other keys and could not read it");
}

#[test]
fn a_message_that_never_ends_is_refused() {
    let (port, door) = door();
    let mut channel = connect(port, 2, 1).unwrap();
    let refused = (0..10).find_map(|_| channel.send_raw(&[1; 16 * 1024], SOON).err());
    // Either the door has hung up by now, or it does when asked.
    let answer: Result<Response, _> = channel.receive(Duration::from_millis(200));
    assert!(refused.is_some() || answer.is_err());
    assert!(door.join().unwrap().is_ok(), "the door ended the conversation in order");
}
