// Requests: what is sent, and how each kind of failure is reported.
import assert from 'node:assert/strict';
import {test} from 'node:test';
import {Backend, BackendError} from '../src/backend.js';

/** A back end whose network answers with `answer`, and the requests that it got. */
function asked (answer) {
    const requests = [];
    const backend = new Backend({fetch: async (url, options) => {
        requests.push({url, ...options});
        if (answer instanceof Error) throw answer;
        return answer;
    }});
    return {backend, requests};
}

const json = (body, status = 200, headers = {}) => new Response(JSON.stringify(body), {status, headers});

test('request names no session and is not cached', async () => {
    const {backend, requests} = asked(json({ok: true}));
    assert.deepEqual(await backend.json('GET', '/api/projects', {query: {title: 'Ä b', empty: null}}), {ok: true});
    const [sent] = requests;
    assert.equal(sent.url, '/backend/api/projects?title=%C3%84+b');
    assert.deepEqual([sent.cache, sent.credentials], ['no-store', 'same-origin']);
    assert.deepEqual(sent.headers, {Accept: 'application/json'});
});

test('request names the user whose work the page holds', async () => {
    const {backend, requests} = asked(json({}));
    backend.actFor('ädä/1');
    await backend.json('POST', '/api/projects', {json: {a: 1}});
    assert.equal(requests[0].headers['X-Expected-User'], '%C3%A4d%C3%A4%2F1');
    assert.equal(requests[0].headers['Content-Type'], 'application/json');
    assert.equal(requests[0].body, '{"a":1}');
});

test('missing network is status 0 and temporary', async () => {
    const {backend} = asked(new TypeError('Failed to fetch'));
    await assert.rejects(backend.json('GET', '/x'), error => error instanceof BackendError && error.status === 0 && error.isTemporary);
});

test('answer that ends in the middle is status 0', async () => {
    const {backend} = asked(new Response('{"id": 1', {status: 200}));
    await assert.rejects(backend.json('GET', '/x'), {status: 0});
});

test('error has the message, the fields and the wait of the answer', async () => {
    const {backend} = asked(json({error: 'busy', version: 3}, 503, {'Retry-After': '5'}));
    await assert.rejects(backend.json('GET', '/x'), {status: 503, message: 'busy', retryAfter: 5, isTemporary: true});
    const other = asked(json({error: 'no'}, 403)).backend;
    await assert.rejects(other.json('GET', '/x'), {status: 403, retryAfter: null, isTemporary: false});
});

test('error that is no JSON has its status', async () => {
    const {backend} = asked(new Response('<html>', {status: 502}));
    await assert.rejects(backend.json('GET', '/x'), {status: 502, message: 'HTTP 502'});
});
