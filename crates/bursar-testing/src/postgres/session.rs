//! Questions to a database from wherever a test is, in a runtime or not.

use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

/// One row, each column as a text.
pub type Row = Vec<Option<String>>;

/// Connects; the connection is driven by the runtime of the caller.
///
/// # Errors
/// What the server, or the way to it, says.
pub async fn connect(url: &str) -> Result<Client, Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // It ends with the client; what went wrong before is told to whoever asks.
    tokio::spawn(connection);
    Ok(client)
}

/// Runs statements over a connection of their own, and answers the rows of all of them.
///
/// # Errors
/// What the server, or the way to it, says.
pub fn ask(url: &str, sql: &str) -> Result<Vec<Row>, Error> {
    block_on(async { rows(&connect(url).await?, sql).await })
}

/// The same over a connection that is there already.
///
/// # Errors
/// What the server, or the way to it, says.
pub async fn rows(client: &Client, sql: &str) -> Result<Vec<Row>, Error> {
    let messages = client.simple_query(sql).await?;
    Ok(messages.iter().filter_map(row).collect())
}

/// Runs a future to its end on a thread of its own, so that the caller may be in a runtime.
pub fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    apart(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(future)
    })
}

/// Calls something on a thread of its own, where it may start a runtime.
pub(super) fn apart<T: Send>(call: impl FnOnce() -> T + Send) -> T {
    let ended = std::thread::scope(|scope| scope.spawn(call).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn row(message: &SimpleQueryMessage) -> Option<Row> {
    let SimpleQueryMessage::Row(row) = message else { return None };
    Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
}
