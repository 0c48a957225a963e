// Who is logged in, in all tabs of a browser.
import assert from 'node:assert/strict';
import {test} from 'node:test';
import {BackendError} from '../src/backend.js';
import {Person} from '../src/person.js';

/** Two tabs' channels; what one posts the other gets. */
class Channel extends EventTarget {
    constructor (others = []) {
        super();
        this.others = others;
    }
    postMessage (data) {
        for (const other of this.others) other.dispatchEvent(Object.assign(new Event('message'), {data}));
    }
}

function tab ({answers, channel = new Channel()}) {
    const acting = [];
    const backend = {
        actFor: id => acting.push(id),
        json: async (method, path) => {
            const answer = answers.shift();
            if (answer instanceof Error) throw answer;
            return answer ?? assert.fail(`${method} ${path}`);
        }
    };
    const opened = [];
    return {person: new Person({backend, channel, open: (...args) => opened.push(args)}), acting, opened, channel};
}

const ada = {user: {id: 'ada', username: 'ada', role: 'student'}};

test('user of the session is found and named in later requests', async () => {
    const {person, acting} = tab({answers: [ada]});
    assert.equal((await person.find()).id, 'ada');
    assert.deepEqual(acting, ['ada']);
    assert.equal(person.isStaff, false);
});

for (const status of [400, 401]) {
    test(`no user is logged in when the answer is ${status}`, async () => {
        const {person} = tab({answers: [new BackendError(status)]});
        assert.equal(await person.find(), null);
    });
}

test('server that does not answer is no logout', async () => {
    const {person} = tab({answers: [new BackendError(503)]});
    await assert.rejects(person.find(), {status: 503});
});

test('login of the same user in another window lets the work go on, and that of another user does not', async () => {
    const grace = {user: {id: 'grace'}};
    const {person, channel} = tab({answers: [ada, grace, ada]});
    await person.find();
    let again = false;
    const waiting = person.loggedInAgain().then(() => {
        again = true;
    });
    const tick = () => new Promise(resolve => setTimeout(resolve, 0));
    channel.dispatchEvent(Object.assign(new Event('message'), {data: 'login'}));
    await tick();
    assert.equal(again, false);
    channel.dispatchEvent(Object.assign(new Event('message'), {data: 'login'}));
    await waiting;
    assert.equal(again, true);
});

test('logout reaches the other tabs, also when the session has ended already', async () => {
    const other = new Channel();
    let left = 0;
    tab({answers: [], channel: other}).person.onLogOut(() => left++);
    const {person} = tab({answers: [new BackendError(401)], channel: new Channel([other])});
    await person.logOut();
    assert.equal(left, 1);
});

test('logout that the server did not get is no logout', async () => {
    const {person} = tab({answers: [new BackendError(0)]});
    await assert.rejects(person.logOut(), {status: 0});
});

test('login in another window comes back to a page that closes', () => {
    const {person, opened} = tab({answers: []});
    person.openLogin();
    assert.equal(opened[0][0], '/backend/login?session=cookie&return_to=%2Flogged-in');
});
