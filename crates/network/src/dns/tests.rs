//! Queries and their answers, decoded by the same library that encoded them.

use hickory_proto::op::Edns;

use super::*;

struct Known;

impl Names for Known {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let many = |count: u8| (1..=count).map(|last| [10, 0, 0, last].into()).collect();
        match name {
            "web" => Some(vec![[10, 0, 0, 2].into(), "fd00::2".parse().unwrap()]),
            "pool" => Some(many(3)),
            "crowd" => Some(many(200)),
            "v4" => Some(many(1)),
            _ => None,
        }
    }

    fn name(&self, ip: IpAddr) -> Option<String> {
        (ip == IpAddr::from([10, 0, 0, 2])).then(|| "web.net".to_owned())
    }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 4711;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn reply_in(message: &Message, transport: Transport, turn: usize) -> Option<Message> {
    let bytes = message.to_vec().unwrap();
    match answer(&bytes, transport, turn, &Known) {
        Outcome::Answer(reply) => {
            assert!(answers(&bytes, &reply));
            Some(Message::from_vec(&reply).unwrap())
        }
        Outcome::Forward => None,
        Outcome::Ignore => panic!("a query was ignored"),
    }
}

fn data(name: &str, kind: RecordType) -> Option<Vec<String>> {
    let reply = reply_in(&query(name, kind), Transport::Udp, 0)?;
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    assert!(reply.metadata.recursion_available && reply.metadata.recursion_desired);
    Some(reply.answers.iter().map(|record| record.data.to_string()).collect())
}

#[test]
fn own_names_are_answered_whatever_is_asked_about_them() {
    let check = |name, kind, expect: Option<&[&str]>| {
        let expect = expect.map(|list| list.iter().map(|&text| text.to_owned()).collect());
        assert_eq!(data(name, kind), expect, "{name} {kind}");
    };
    check("web.", RecordType::A, Some(&["10.0.0.2"]));
    check("WEB.", RecordType::A, Some(&["10.0.0.2"]));
    check("web.", RecordType::AAAA, Some(&["fd00::2"]));
    check("web.", RecordType::ANY, Some(&["10.0.0.2", "fd00::2"]));
    check("v4.", RecordType::AAAA, Some(&[]));
    for kind in [RecordType::MX, RecordType::TXT, RecordType::SRV] {
        check("web.", kind, Some(&[]));
    }
    check("example.org.", RecordType::A, None);
    check(".", RecordType::NS, None);
    check("2.0.0.10.in-addr.arpa.", RecordType::PTR, Some(&["web.net."]));
    check("3.0.0.10.in-addr.arpa.", RecordType::PTR, None);
    check("0.0.10.in-addr.arpa.", RecordType::PTR, None);
    check("nonsense.", RecordType::PTR, None);
}

#[test]
fn replicas_take_turns() {
    let first = |turn| {
        let reply = reply_in(&query("pool.", RecordType::A), Transport::Udp, turn).unwrap();
        assert_eq!(reply.answers.len(), 3);
        reply.answers[0].data.to_string()
    };
    assert_eq!([0, 1, 2, 3].map(first), ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]);
}

#[test]
fn what_does_not_fit_is_cut_and_marked() {
    let crowd = query("crowd.", RecordType::A);
    let small = reply_in(&crowd, Transport::Udp, 0).unwrap();
    assert!(small.metadata.truncation);
    assert!((25..=30).contains(&small.answers.len()), "{}", small.answers.len());
    assert!(small.to_vec().unwrap().len() <= DATAGRAM_MAX);
    let whole = reply_in(&crowd, Transport::Tcp, 0).unwrap();
    assert!(!whole.metadata.truncation && whole.answers.len() == 200);
    let mut large = crowd;
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    large.set_edns(edns);
    let reply = reply_in(&large, Transport::Udp, 0).unwrap();
    assert_eq!((reply.answers.len(), reply.max_payload()), (200, 4096));
}

#[test]
fn what_is_no_query_is_no_harm() {
    let bytes = query("web.", RecordType::A).to_vec().unwrap();
    let outcome = |bytes: &[u8]| answer(bytes, Transport::Udp, 0, &Known);
    assert_eq!(outcome(&bytes[..5]), Outcome::Ignore);
    let mut reply = bytes.clone();
    reply[2] |= 0x80;
    assert_eq!(outcome(&reply), Outcome::Ignore);
    for end in HEADER..bytes.len() {
        let Outcome::Answer(reply) = outcome(&bytes[..end]) else { panic!("{end}") };
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(
            (reply.metadata.id, reply.metadata.response_code),
            (4711, ResponseCode::FormErr)
        );
    }
    let mut update = query("web.", RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    let Outcome::Answer(reply) = outcome(&update.to_vec().unwrap()) else { panic!() };
    assert_eq!(Message::from_vec(&reply).unwrap().metadata.response_code, ResponseCode::NotImp);
}

#[test]
fn answers_belong_to_their_question() {
    let asked = query("example.org.", RecordType::A).to_vec().unwrap();
    let failed = failure(&asked);
    assert!(answers(&asked, &failed) && is_unsure(&failed));
    let other = failure(&query("example.com.", RecordType::A).to_vec().unwrap());
    assert!(!answers(&asked, &other));
    let mut number = failed;
    number[0] ^= 1;
    assert!(!answers(&asked, &number));
    assert!(!answers(&asked, &asked));
}
