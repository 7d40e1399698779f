use resp::OwnedRequest;

use crate::{Command, CommandTable, LookupError};

fn lookup(args: &[&[u8]]) -> Result<&'static str, String> {
    let request = OwnedRequest::from_args(args);
    match CommandTable::builtin().lookup(request.as_request()) {
        Ok(command) => Ok(command.name()),
        Err(error) => Err(error.to_string()),
    }
}

fn words(line: &str) -> Result<&'static str, String> {
    lookup(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

#[test]
fn finds_commands_and_subcommands_in_any_case() {
    assert_eq!(words("get k"), Ok("get"));
    assert_eq!(words("GeT k"), Ok("get"));
    assert_eq!(words("CLIENT setname x"), Ok("client|setname"));
    assert_eq!(words("COMMAND"), Ok("command"));
    assert_eq!(words("command count"), Ok("command|count"));
    assert_eq!(
        words("GEORADIUSBYMEMBER_RO k m 1 m"),
        Ok("georadiusbymember_ro")
    );
    let table = CommandTable::builtin();
    for command in table.iter() {
        let upper = command.name().to_uppercase();
        for name in [command.name(), &upper] {
            assert_eq!(
                table.by_name(name).map(Command::id),
                Some(command.id()),
                "{name}"
            );
        }
    }
}

/// The texts are Valkey 9.1.2's, seen on the server.
#[test]
fn errors_are_the_servers() {
    let error = |text: &str| Err(text.to_owned());
    assert_eq!(
        words("get"),
        error("ERR wrong number of arguments for 'get' command")
    );
    assert_eq!(
        words("get a b"),
        error("ERR wrong number of arguments for 'get' command")
    );
    assert_eq!(
        words("CLIENT"),
        error("ERR wrong number of arguments for 'client' command")
    );
    let kill = "ERR wrong number of arguments for 'client|kill' command";
    assert_eq!(words("CLIENT kill"), error(kill));
    assert_eq!(
        words("config foo"),
        error("ERR unknown subcommand 'foo'. Try CONFIG HELP.")
    );
    assert_eq!(
        words("Command foo a"),
        error("ERR unknown subcommand 'foo'. Try COMMAND HELP.")
    );
    let unknown = "ERR unknown command 'CONFIG|GET', with args beginning with: 'a' ";
    assert_eq!(words("CONFIG|GET a"), error(unknown));
    assert_eq!(
        lookup(&[b""]),
        error("ERR unknown command '', with args beginning with: ")
    );
    assert_eq!(
        words("NOSUCH a b"),
        error("ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' ")
    );
}

#[test]
fn what_is_shown_is_bounded_and_safe() {
    let long = [b'n'; 300];
    let Err(name) = lookup(&[&long]) else {
        panic!("a command of 300 letters")
    };
    assert_eq!(
        name,
        format!(
            "ERR unknown command '{}', with args beginning with: ",
            "n".repeat(128)
        )
    );
    let Err(args) = lookup(&[b"x", &long, b"more"]) else {
        panic!("x is no command")
    };
    assert_eq!(
        args,
        format!(
            "ERR unknown command 'x', with args beginning with: '{}' ",
            "n".repeat(128)
        )
    );
    let Err(args) = lookup(&[b"x", &[b'a'; 100], &[b'b'; 100], b"c"]) else {
        panic!("x")
    };
    let (a, b) = ("a".repeat(100), "b".repeat(25));
    assert_eq!(
        args,
        format!("ERR unknown command 'x', with args beginning with: '{a}' '{b}' ")
    );
    let Err(name) = lookup(&[b"client", &long]) else {
        panic!("a subcommand of 300 letters")
    };
    assert_eq!(
        name,
        format!(
            "ERR unknown subcommand '{}'. Try CLIENT HELP.",
            "n".repeat(128)
        )
    );
    // Seen on the server: printf stops at NUL, CR and LF become spaces, all else stays.
    let request = OwnedRequest::from_args([b"a\r\nb".as_slice(), b"\xff\r\n", b"a\0b"]);
    let error: LookupError = CommandTable::builtin()
        .lookup(request.as_request())
        .map(|_| ())
        .unwrap_err();
    assert_eq!(
        error.text(),
        b"ERR unknown command 'a  b', with args beginning with: '\xff  ' 'a' "
    );
    let nul = lookup(&[b"get\0b", b"k"]);
    assert_eq!(
        nul,
        Err("ERR unknown command 'get', with args beginning with: 'k' ".to_owned())
    );
}
