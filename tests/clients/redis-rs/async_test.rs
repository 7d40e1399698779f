//! The attribute `async_test` that redis-rs's tests are written with. Its crate is not published,
//! so this one stands in: a test of its own for each kind of connection that a function takes.

use proc_macro::{Delimiter, TokenStream, TokenTree};

#[proc_macro_attribute]
pub fn async_test(_: TokenStream, item: TokenStream) -> TokenStream {
    let tokens: Vec<TokenTree> = item.clone().into_iter().collect();
    let is_fn = |token: &TokenTree| token.to_string() == "fn";
    let at = tokens.iter().position(is_fn).expect("a function");
    let name = tokens[at + 1].to_string();
    let takes = tokens[at..].iter().find_map(|token| match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => {
            Some(group.stream().to_string())
        }
        _ => None,
    });
    let takes = takes.expect("parameters");
    let returns = tokens[at..]
        .windows(2)
        .any(|two| two[0].to_string() == "-" && two[1].to_string() == ">");
    let check = if returns { ".unwrap()" } else { "" };
    let test = |kind: &str, before: &str, given: &str| {
        format!(
            "#[test] fn {kind}_{name}() {{ {before} block_on_all(
                async move {{ {name}({given}).await{check} }}, RuntimeType::Tokio) }}"
        )
    };
    let context = "let ctx = TestContext::default();";
    let tests = if takes.is_empty() {
        test("plain", "", "")
    } else if takes.ends_with("bool") {
        test("with", "", "true") + &test("without", "", "false")
    } else {
        test(
            "multiplexed",
            context,
            "ctx.async_connection().await.unwrap()",
        ) + &test(
            "managed",
            context,
            "ctx.client.get_connection_manager().await.unwrap()",
        )
    };
    let mut all = item;
    all.extend(tests.parse::<TokenStream>().expect("tests"));
    all
}
