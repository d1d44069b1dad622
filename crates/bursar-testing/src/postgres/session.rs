//! Queries from any test, inside or outside a runtime.

use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

/// One row, each column as a text.
pub type Row = Vec<Option<String>>;

/// Connects. The runtime of the caller drives the connection.
///
/// # Errors
/// If the server cannot be reached or refuses.
pub async fn connect(url: &str) -> Result<Client, Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // It ends with the client. Queries return its errors.
    tokio::spawn(connection);
    Ok(client)
}

/// Runs statements over a new connection, and returns the rows of all of them.
///
/// # Errors
/// If the server cannot be reached, or a statement fails.
pub fn ask(url: &str, sql: &str) -> Result<Vec<Row>, Error> {
    block_on(async { rows(&connect(url).await?, sql).await })
}

/// The same over an existing connection.
///
/// # Errors
/// If the connection is closed, or a statement fails.
pub async fn rows(client: &Client, sql: &str) -> Result<Vec<Row>, Error> {
    let messages = client.simple_query(sql).await?;
    Ok(messages.iter().filter_map(row).collect())
}

/// Runs a future on a new thread, so that the caller may be in a runtime.
pub fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    on_own_thread(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(future)
    })
}

/// Calls a function on a new thread, where it may start a runtime.
pub(super) fn on_own_thread<T: Send>(call: impl FnOnce() -> T + Send) -> T {
    let ended = std::thread::scope(|scope| scope.spawn(call).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn row(message: &SimpleQueryMessage) -> Option<Row> {
    let SimpleQueryMessage::Row(row) = message else { return None };
    Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
}
