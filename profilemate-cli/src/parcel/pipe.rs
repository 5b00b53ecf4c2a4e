//! Bytes between a thread that may wait and the network: a few pieces at most are on their way.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Pieces on their way, at most.
const PIECES: usize = 4;

/// A piece, or why there are no more.
type Piece = io::Result<Bytes>;

/// Both ends.
pub fn pipe() -> (Inlet, Outlet) {
    let (sender, receiver) = channel(PIECES);
    let outlet = Outlet {
        receiver,
        rest: Bytes::new(),
    };
    (Inlet(sender), outlet)
}

/// Where bytes go in. Writing waits for room, in a thread that may; it fails when the other end is gone.
#[derive(Clone, Debug)]
pub struct Inlet(Sender<Piece>);

fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl Inlet {
    /// Sends a piece, or why there are no more; whether somebody still listens.
    pub async fn send(&self, piece: Piece) -> bool {
        self.0.send(piece).await.is_ok()
    }

    /// Tells the other end that there are no more, in a thread that may wait.
    pub fn fail(&self, error: io::Error) {
        let _nobody_listens = self.0.blocking_send(Err(error));
    }
}

impl Write for Inlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Ok(Bytes::copy_from_slice(bytes));
        self.0.blocking_send(piece).map_err(|_error| gone())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where bytes come out: read in a thread that may wait, or as the body of an answer.
#[derive(Debug)]
pub struct Outlet {
    receiver: Receiver<Piece>,
    rest: Bytes,
}

impl Read for Outlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.rest = piece?,
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

impl Body for Outlet {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = self.receiver.poll_recv(context);
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
