//! Writes messages of the network as others make them, for fuzz targets to begin with: `seeds FOLDER`.
//!
//! DNS messages are hickory's, the hellos are rustls's, so that neither has the mistakes of the code that reads them.

use hickory_proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, MX, PTR, SRV, TXT},
    },
};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};
use std::{error::Error, fs, path::Path, sync::Arc};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).ok_or("where to? seeds FOLDER")?;
    let folder = Path::new(&folder);
    write(&folder.join("dns_message"), dns()?)?;
    write(&folder.join("tls_hello"), hellos()?)
}

fn write(folder: &Path, seeds: Vec<Vec<u8>>) -> Result<()> {
    fs::create_dir_all(folder)?;
    for (n, seed) in seeds.into_iter().enumerate() {
        fs::write(folder.join(n.to_string()), seed)?;
    }
    Ok(())
}

fn name(text: &str) -> Result<Name> {
    Ok(Name::from_ascii(text)?)
}

fn query(asked: &str, kind: RecordType) -> Result<Message> {
    let mut m = Message::query();
    m.metadata.recursion_desired = true;
    m.add_query(Query::query(name(asked)?, kind));
    Ok(m)
}

/// A response; names that were there before are pointers.
fn response(asked: &str, kind: RecordType, answers: Vec<(&str, RData)>) -> Result<Message> {
    let mut m = Message::response(7, OpCode::Query);
    m.add_query(Query::query(name(asked)?, kind));
    for (owner, data) in answers {
        m.add_answer(Record::from_rdata(name(owner)?, 300, data));
    }
    Ok(m)
}

fn dns() -> Result<Vec<Vec<u8>>> {
    let v4 = |n: u8| RData::A(A::new(10, 0, 0, n));
    let v6 = |n: u16| RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, n));
    let (www, alias) = ("www.example.com.", "edge.cdn.example.net.");
    let mut all = vec![
        query(www, RecordType::A)?,
        query(www, RecordType::AAAA)?,
        query(".", RecordType::NS)?,
        query("7.0.0.10.in-addr.arpa.", RecordType::PTR)?,
        query(&format!("{0}.{0}.{0}.example.com.", "x".repeat(63)), RecordType::A)?,
        response(www, RecordType::A, vec![(www, v4(1)), (www, v4(2)), (www, v4(3))])?,
        response(
            www,
            RecordType::AAAA,
            vec![(www, RData::CNAME(CNAME(name(alias)?))), (alias, v6(1)), (alias, v6(2))],
        )?,
        response(
            "7.0.0.10.in-addr.arpa.",
            RecordType::PTR,
            vec![("7.0.0.10.in-addr.arpa.", RData::PTR(PTR(name(www)?)))],
        )?,
        response(
            "example.com.",
            RecordType::MX,
            vec![("example.com.", RData::MX(MX::new(10, name("mail.example.com.")?)))],
        )?,
        response(
            "example.com.",
            RecordType::TXT,
            vec![("example.com.", RData::TXT(TXT::new(vec!["v=spf1 -all".into(); 3])))],
        )?,
        response(
            "_sip._tcp.example.com.",
            RecordType::SRV,
            vec![("_sip._tcp.example.com.", RData::SRV(SRV::new(1, 2, 5060, name(www)?)))],
        )?,
        response("many.example.com.", RecordType::A, (0..100).map(|n| ("many.example.com.", v4(n))).collect())?,
        Message::error_msg(7, OpCode::Query, ResponseCode::NXDomain),
    ];
    let mut with_options = query(www, RecordType::HTTPS)?;
    with_options.set_edns(Edns::new());
    all.push(with_options);
    Ok(all.iter().map(Message::to_vec).collect::<std::result::Result<_, _>>()?)
}

fn hellos() -> Result<Vec<Vec<u8>>> {
    let mut out = Vec::new();
    let both: [&[&SupportedProtocolVersion]; 3] =
        [&[&version::TLS12], &[&version::TLS13], &[&version::TLS12, &version::TLS13]];
    for versions in both {
        for (server, alpn) in
            [("www.example.com", true), ("a.b", false), ("10.0.0.1", false), (&"x.".repeat(100), true)]
        {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
            let mut config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
            if alpn {
                config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            }
            let server = server.trim_end_matches('.').to_owned();
            let mut hello = Vec::new();
            ClientConnection::new(Arc::new(config), server.try_into()?)?.write_tls(&mut hello)?;
            // the same in small records: `type version length` before each piece of the message
            let pieces = hello[5..].chunks(50);
            out.push(pieces.flat_map(|p| [&hello[..3], &(p.len() as u16).to_be_bytes(), p].concat()).collect());
            out.push(hello);
        }
    }
    Ok(out)
}
