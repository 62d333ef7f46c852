//! At stake: a customer sees the order wherever they go next, nothing is sold that is not there, and nobody pays twice.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::SET_COOKIE;
use reqwest::redirect::Policy;
use shop::Shop;
use tidemark_tests::{Cluster, Place, wait};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::PROGRAM;

/// Of the goods in its `schema.sql`.
const TIDE_TABLE: u32 = 1;
const LAST_BOTTLE: u32 = 5;

/// A shop beside each replica, by URL.
async fn shops(cluster: &Cluster) -> Vec<String> {
    let mut shops = Vec::new();
    for node in &cluster.replicas {
        let shop = Shop::open(&Cluster::client(node), "shop").await;
        let router = shop.expect("the shop opens").router();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        shops.push(format!("http://{address}"));
    }
    cluster.settled(wait::SOON).await;
    shops
}

async fn start() -> (Cluster, Vec<String>) {
    let places = [
        Place::near("WEUR"),
        Place::at("OC", Duration::from_millis(30)),
    ];
    let cluster = Cluster::start(PROGRAM, &places).await;
    let shops = shops(&cluster).await;
    (cluster, shops)
}

/// Somebody with a browser: it keeps cookies, and shows where it is sent instead of going there.
#[derive(Clone)]
struct Customer {
    http: reqwest::Client,
    cookies: BTreeMap<String, String>,
}

impl Customer {
    fn new() -> Self {
        let http = reqwest::Client::builder().redirect(Policy::none());
        Self {
            http: http.build().expect("a browser"),
            cookies: BTreeMap::new(),
        }
    }

    async fn get(&mut self, shop: &str, path: &str) -> (u16, String) {
        let request = self.http.get(format!("{shop}{path}"));
        self.send(request).await
    }

    async fn post(&mut self, shop: &str, path: &str, form: String) -> (u16, String) {
        let request = self.http.post(format!("{shop}{path}")).body(form);
        let kind = "application/x-www-form-urlencoded";
        self.send(request.header("content-type", kind)).await
    }

    /// Status, and text or where it is sent.
    async fn send(&mut self, request: reqwest::RequestBuilder) -> (u16, String) {
        let cookies = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let cookies = cookies.collect::<Vec<_>>().join("; ");
        let answer = request.header("cookie", cookies).send().await;
        let answer = answer.expect("the shop answers");
        for cookie in answer.headers().get_all(SET_COOKIE) {
            let cookie = cookie.to_str().expect("a text");
            let (name, value) = cookie.split_once('=').expect("a name");
            let value = value.split(';').next().unwrap_or_default();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        let status = answer.status().as_u16();
        let location = answer.headers().get("location");
        let location = location.map(|place| place.to_str().expect("a text").to_owned());
        match location {
            Some(location) => (status, location),
            None => (status, answer.text().await.expect("a page")),
        }
    }

    async fn put_in_cart(&mut self, shop: &str, product: u32) {
        let form = format!("product={product}&quantity=1");
        let (status, place) = self.post(shop, "/cart", form).await;
        assert_eq!((status, &*place), (303, "/cart"));
    }

    async fn order(&mut self, shop: &str, order: Uuid) -> (u16, String) {
        self.post(shop, "/orders", format!("order={order}")).await
    }

    /// How many orders the list shows.
    async fn orders(&mut self, shop: &str) -> usize {
        let (status, page) = self.get(shop, "/orders").await;
        assert_eq!(status, 200, "{page}");
        page.matches("href=\"/orders/").count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn order_at_one_region_is_seen_at_once_at_another_with_the_cookie() {
    let (cluster, shops) = start().await;
    let [weur, oc] = &shops[..] else {
        panic!("two shops");
    };
    let mut customer = Customer::new();
    customer.put_in_cart(weur, TIDE_TABLE).await;
    let (status, page) = customer.get(oc, "/cart").await;
    assert_eq!(status, 200);
    assert!(page.contains("Tide table"), "{page}");

    // OC's copy cannot have the order, so whoever does not say what they have seen does not see it.
    cluster.ways[1].cut_both();
    let order = Uuid::new_v4();
    let placed = customer.order(weur, order).await;
    assert_eq!(placed, (303, format!("/orders/{order}")));
    let mut forgetful = customer.clone();
    forgetful.cookies.remove("bookmark");
    let (status, page) = forgetful.get(oc, &placed.1).await;
    assert_eq!(status, 404, "{page}");

    cluster.ways[1].heal_both();
    // The order is on the page whoever answers. Just after the cut a replica may rather ask the primary than wait.
    wait::soon("OC answers by itself again", async || {
        let (status, page) = customer.get(oc, &placed.1).await;
        assert_eq!(status, 200, "{page}");
        assert!(
            page.contains("Tide table") && page.contains("€ 14.50"),
            "{page}"
        );
        page.contains("Read in OC, from a replica").then_some(())
    })
    .await;
    assert_eq!(customer.orders(oc).await, 1);
    assert!(!customer.get(oc, "/cart").await.1.contains("Tide table"));

    // It is theirs alone.
    let (status, _) = Customer::new().get(weur, &placed.1).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn last_one_is_sold_once_however_many_want_it() {
    let (cluster, shops) = start().await;
    let mut rush = JoinSet::new();
    for number in 0..8 {
        let shop = shops[number % shops.len()].clone();
        rush.spawn(async move {
            let mut customer = Customer::new();
            customer.put_in_cart(&shop, LAST_BOTTLE).await;
            let (status, page) = customer.order(&shop, Uuid::new_v4()).await;
            let kept = customer
                .get(&shop, "/cart")
                .await
                .1
                .contains("last message");
            let orders = customer.orders(&shop).await;
            match status {
                303 => assert_eq!((orders, kept), (1, false)),
                409 => {
                    assert!(page.contains("Nothing was ordered"), "{page}");
                    assert_eq!((orders, kept), (0, true));
                }
                _ => panic!("{status}: {page}"),
            }
            status
        });
    }
    let outcomes = rush.join_all().await;
    let sold = outcomes.iter().filter(|status| **status == 303).count();
    assert_eq!(sold, 1, "{outcomes:?}");
    let left = cluster
        .primary
        .api()
        .query("shop", "SELECT stock FROM products WHERE id = 5");
    assert_eq!(left.ok().await.rows()[0]["stock"], 0);
    let (_, page) = Customer::new().get(&shops[0], "/").await;
    assert!(page.contains("Lighthouse &amp; keeper"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn order_that_is_sent_again_counts_once() {
    let (cluster, shops) = start().await;
    let mut customer = Customer::new();
    customer.put_in_cart(&shops[0], TIDE_TABLE).await;
    let order = Uuid::new_v4();
    let mut presses = JoinSet::new();
    for number in 0..4 {
        let shop = shops[number % shops.len()].clone();
        let mut customer = customer.clone();
        presses.spawn(async move { customer.order(&shop, order).await });
    }
    for pressed in presses.join_all().await {
        assert_eq!(pressed, (303, format!("/orders/{order}")));
    }
    // With something in the cart again, the number still means the first order.
    customer.put_in_cart(&shops[1], TIDE_TABLE).await;
    assert_eq!(customer.order(&shops[1], order).await.0, 303);
    assert_eq!(customer.orders(&shops[0]).await, 1);
    let left = cluster
        .primary
        .api()
        .query("shop", "SELECT stock FROM products WHERE id = 1");
    assert_eq!(left.ok().await.rows()[0]["stock"], 39);

    // And so it does once the primary has forgotten the request: the row is there.
    cluster
        .primary
        .api()
        .query("shop", "DELETE FROM cart_lines")
        .ok()
        .await;
    let (status, page) = customer.order(&shops[1], Uuid::new_v4()).await;
    assert_eq!(status, 409, "{page}");
    assert!(page.contains("cart is empty"), "{page}");

    // Somebody else's number is no order of one's own.
    let mut thief = Customer::new();
    thief.put_in_cart(&shops[0], TIDE_TABLE).await;
    let (_, place) = thief.order(&shops[0], order).await;
    let (status, _) = thief.get(&shops[0], &place).await;
    assert_eq!(status, 404);
    assert_eq!(thief.orders(&shops[0]).await, 0);
}
