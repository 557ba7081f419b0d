//! Sources run beside the epoch loop: one task each polls, decodes and hands batches over through a bounded channel, so that
//! fetching and decoding overlap with operators and commits, and memory stays bounded when the lake is slower than the source.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::stages::before;
use crate::error::Error;
use crate::types::{Poll, PollLimit, Positions, Source, SourceBatch};

/// Polls waiting in the channel; each holds at most [`PollLimit::max_rows`] rows, roughly.
/// While an epoch is encoded and committed, about as much is read for the next one.
const CHANNEL: usize = 4;

/// What a feed says.
#[derive(Debug)]
pub(super) enum FeedEvent {
    /// Rows, in offset order per partition.
    Batches(Vec<SourceBatch>),
    /// Everything available at start has been handed over.
    End,
    /// The source failed; the feed has ended.
    Failed(Error),
}

/// Health of a feed, for people.
#[derive(Debug, Clone, Default)]
pub struct FeedStatus {
    /// Rows behind the end, per partition, as last asked.
    pub lag: Positions,
    /// Nothing more to read right now.
    pub idle: bool,
}

/// A running source.
pub(super) struct Feed {
    /// Index of the source in the pipeline.
    pub receiver: mpsc::Receiver<FeedEvent>,
    pub status: Arc<Mutex<FeedStatus>>,
    committed: watch::Sender<Positions>,
    task: JoinHandle<()>,
}

impl Feed {
    /// Starts polling an opened source; nothing at or behind `until` is handed over.
    pub(super) fn start(source: Box<dyn Source>, limit: PollLimit, until: Option<Positions>) -> Self {
        let (sender, receiver) = mpsc::channel(CHANNEL);
        let (committed, committed_rx) = watch::channel(Positions::new());
        let status = Arc::new(Mutex::new(FeedStatus::default()));
        let task = tokio::spawn(drive(source, limit, until, sender, committed_rx, Arc::clone(&status)));
        Feed { receiver, status, committed, task }
    }

    /// Tells the source what the lake holds; only lag tools see it.
    pub(super) fn committed(&self, positions: Positions) {
        // The feed may have ended (bounded run): nobody is left to tell.
        let _ = self.committed.send(positions);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn drive(
    mut source: Box<dyn Source>,
    limit: PollLimit,
    until: Option<Positions>,
    sender: mpsc::Sender<FeedEvent>,
    mut committed: watch::Receiver<Positions>,
    status: Arc<Mutex<FeedStatus>>,
) {
    let mut ended = false;
    loop {
        if committed.has_changed().unwrap_or(false) {
            let positions = committed.borrow_and_update().clone();
            // Consumer-group offsets are a courtesy: failing to store them loses nothing.
            if let Err(error) = source.committed(&positions).await {
                tracing::debug!(%error, "could not report offsets to the consumer group");
            }
            if let Ok(lag) = source.lag().await {
                status.lock().lag = lag;
            }
        }
        if ended {
            // Stay for the last commit's offsets, then leave with the pipeline.
            if committed.changed().await.is_err() {
                return;
            }
            committed.mark_changed();
            continue;
        }
        let event = match source.poll(limit).await {
            Ok(Poll::Batches(batches)) => {
                status.lock().idle = false;
                FeedEvent::Batches(match &until {
                    Some(until) => batches.into_iter().filter_map(|batch| before(batch, until)).collect(),
                    None => batches,
                })
            }
            Ok(Poll::Idle) => {
                status.lock().idle = true;
                if sender.is_closed() {
                    return;
                }
                continue;
            }
            Ok(Poll::End) => {
                status.lock().idle = true;
                ended = true;
                FeedEvent::End
            }
            Err(error) => {
                let _ = sender.send(FeedEvent::Failed(error)).await;
                return;
            }
        };
        if sender.send(event).await.is_err() {
            return;
        }
    }
}
