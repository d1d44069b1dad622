//! The operator's listener.

use std::time::Duration;

use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::raw_connection::RawConnection;
use bursar_testing::waiting::within;

fn status(address: &str, path: &str) -> Option<u16> {
    let mut connection = RawConnection::open(address);
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    connection.status()
}

/// The address of the operator's listener, from the log.
pub(crate) fn operator_address(folder: &Folder) -> String {
    let address = within(Duration::from_secs(10), || {
        let log = folder.log();
        let line = log.lines().find(|line| line.contains("the operator's routes"))?;
        let port = line.split("127.0.0.1:").nth(1)?;
        let port: String = port.chars().take_while(char::is_ascii_digit).collect();
        Some(format!("127.0.0.1:{port}"))
    });
    address.expect("the log names the address")
}

#[test]
fn the_operators_listener_has_health_and_not_the_api() {
    let mut folder = Folder::new();
    folder.set("BURSAR_OPERATOR_LISTEN", "127.0.0.1:0");
    folder.set("BURSAR_LOG", "info");
    let server = Server::start(&folder);
    let address = operator_address(&folder);
    assert_eq!(status(&address, "/health/ready"), Some(200));
    assert_eq!(status(&address, "/api/v1/tenants"), Some(404));
    assert_eq!(status(server.address(), "/health/ready"), Some(200));
    assert_eq!(status(server.address(), "/api/v1/tenants"), Some(401));
    server.stop();
}
