// The saver loses nothing: what the server did not acknowledge stays a draft, and a lost answer is no conflict.
import assert from 'node:assert/strict';
import {test} from 'node:test';
import {BackendError} from '../src/backend.js';
import {retrySeconds, Saver, sha256} from '../src/saver.js';

/** Drafts in memory. */
class MemoryDrafts {
    constructor () {
        this.kept = new Map();
    }
    async put (draft) {
        this.kept.set(draft.key, draft);
    }
    async remove (_userId, key) {
        this.kept.delete(key);
    }
}

/** A back end with one project table; `lose` makes the next answers get lost after the work was done. */
class FakeBackend {
    constructor () {
        this.projects = new Map();
        this.keys = new Map();
        this.sent = [];
        this.failures = []; // of the next requests: a status before the work, or 'lost' after it
    }

    async json (method, path, {form, query, headers}) {
        this.sent.push({method, path});
        const failure = this.failures.shift();
        if (typeof failure === 'number') throw new BackendError(failure, {error: 'no'});
        const answer = await this._work(method, path, form, query, headers);
        if (failure === 'lost') throw new BackendError(0);
        return answer;
    }

    async _work (method, path, form, query, headers) {
        const digest = await sha256(form.get('project_file'));
        if (method === 'POST') {
            const key = headers['Idempotency-Key'];
            if (!this.keys.has(key)) {
                const id = this.projects.size + 1;
                this.keys.set(key, id);
                this.projects.set(id, {version: 1, digest, title: query.title});
            }
            const id = this.keys.get(key);
            return {id, version: this.projects.get(id).version};
        }
        const id = Number(path.split('/').at(-1));
        const project = this.projects.get(id);
        const version = form.get('version');
        if (version !== null && Number(version) !== project.version) {
            throw new BackendError(409, {version: project.version, sha256: project.digest, updated_at: '2026-01-01T00:00:00'});
        }
        Object.assign(project, {version: project.version + 1, digest, title: query.title});
        return {id, version: project.version};
    }
}

const content = text => ({file: new Blob([text]), title: 'Katze', thumbnail: null});

function school (page = {}) {
    const backend = new FakeBackend();
    const drafts = new MemoryDrafts();
    let keys = 0;
    const saver = new Saver({backend, drafts, userId: 'ada', newKey: () => `key-${++keys}`, page: {
        conflict: () => assert.fail('a conflict was shown'),
        logIn: () => assert.fail('a login was asked for'),
        ...page
    }});
    return {backend, drafts, saver};
}

test('first save creates one project and removes its draft', async () => {
    const {backend, drafts, saver} = school();
    await saver.keep(null, content('a'));
    assert.deepEqual([...drafts.kept.keys()], ['new-key-1']);
    assert.deepEqual(await saver.save(null, content('a')), {id: 1, version: 1, outcome: 'saved'});
    assert.deepEqual(await saver.save('1', content('b')), {id: 1, version: 2, outcome: 'saved'});
    assert.equal(backend.projects.size, 1);
    assert.equal(drafts.kept.size, 0);
});

for (const status of [0, 429, 500, 502, 503, 504, 507]) {
    test(`work stays a draft when the answer is ${status}`, async () => {
        const {backend, drafts, saver} = school();
        saver.opened('1', 1);
        backend.projects.set(1, {version: 1, digest: 'x'});
        backend.failures = [status];
        await assert.rejects(saver.save('1', content('b')), {status});
        assert.equal(await drafts.kept.get('1').file.text(), 'b');
        assert.equal(drafts.kept.get('1').version, 1);
        assert.equal((await saver.save('1', content('c'))).version, 2);
        assert.equal(drafts.kept.size, 0);
    });
}

test('too large a project stays a draft', async () => {
    const {backend, drafts, saver} = school();
    backend.failures = [413];
    await assert.rejects(saver.save(null, content('b')), {status: 413});
    assert.equal(drafts.kept.size, 1);
});

test('lost answer to a save is no conflict', async () => {
    const {backend, saver} = school();
    saver.opened('1', 1);
    backend.projects.set(1, {version: 1, digest: 'x'});
    backend.failures = ['lost'];
    await assert.rejects(saver.save('1', content('same')), {status: 0});
    assert.deepEqual(await saver.save('1', content('same')), {id: 1, version: 2, outcome: 'saved'});
    assert.equal(backend.projects.get(1).version, 2, 'the same bytes were saved once');
});

test('newer work after a lost answer is saved on top of it', async () => {
    const {backend, saver} = school();
    saver.opened('1', 1);
    backend.projects.set(1, {version: 1, digest: 'x'});
    backend.failures = ['lost'];
    await assert.rejects(saver.save('1', content('older')), {status: 0});
    assert.deepEqual(await saver.save('1', content('newer')), {id: 1, version: 3, outcome: 'saved'});
    assert.equal(backend.projects.get(1).digest, await sha256(new Blob(['newer'])));
});

test('lost answer to a first save creates no second project', async () => {
    const {backend, saver} = school();
    backend.failures = ['lost'];
    await assert.rejects(saver.save(null, content('a')), {status: 0});
    assert.equal((await saver.save(null, content('b'))).id, 1);
    assert.equal(backend.projects.size, 1);
});

function conflicting (choice) {
    const asked = [];
    const made = school({conflict: async both => {
        asked.push(both);
        return choice;
    }});
    made.saver.opened('1', 1);
    made.backend.projects.set(1, {version: 4, digest: 'theirs'});
    return {...made, asked};
}

test('conflict: keep mine saves over the other version', async () => {
    const {backend, saver, asked} = conflicting('mine');
    assert.deepEqual(await saver.save('1', content('b')), {id: 1, version: 5, outcome: 'saved'});
    assert.equal(backend.projects.get(1).version, 5);
    assert.equal(asked[0].theirs.updated_at, '2026-01-01T00:00:00');
});

test('conflict: copy leaves the other version as it is', async () => {
    const {backend, saver, drafts} = conflicting('copy');
    assert.deepEqual(await saver.save('1', content('b')), {id: 2, version: 1, outcome: 'copied'});
    assert.equal(backend.projects.get(1).digest, 'theirs');
    assert.equal(drafts.kept.size, 0);
});

test('conflict: the other version is loaded and saves nothing', async () => {
    const {backend, saver, drafts} = conflicting('theirs');
    assert.deepEqual(await saver.save('1', content('b')), {id: 1, version: 4, outcome: 'theirs'});
    assert.equal(backend.projects.get(1).version, 4);
    assert.equal(drafts.kept.size, 0);
});

test('expired session: the save goes on after the login', async () => {
    let logins = 0;
    const {backend, saver} = school({logIn: async () => ++logins > 0});
    backend.failures = [401, 401];
    assert.equal((await saver.save(null, content('a'))).id, 1);
    assert.equal(logins, 2);
});

test('copy of a project saves beside it and keeps its draft', async () => {
    const {backend, saver, drafts} = school();
    saver.opened('1', 3);
    backend.projects.set(1, {version: 3, digest: 'x'});
    await saver.keep('1', content('unsaved'));
    const copy = await saver.save('1'.slice(1) || null, content('copy'), {separate: true});
    assert.deepEqual(copy, {id: 2, version: 1, outcome: 'copied'});
    assert.equal(drafts.kept.has('1'), true);
});

test('a browser without room for drafts still saves', async () => {
    const {saver, drafts} = school();
    drafts.put = async () => {
        throw new DOMException('full', 'QuotaExceededError');
    };
    assert.equal(await saver.keep(null, content('a')), false);
    assert.equal((await saver.save(null, content('a'))).id, 1);
});

test('waits grow to half a minute, and the server may choose another', () => {
    assert.deepEqual([1, 2, 3, 4, 5, 6].map(attempt => retrySeconds(attempt)), [2, 4, 8, 16, 30, 30]);
    assert.equal(retrySeconds(5, new BackendError(503, null, 7)), 7);
});
