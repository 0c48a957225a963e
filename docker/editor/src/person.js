// Who is logged in, and logging in and out. All tabs of a browser share one session.
import {BackendError} from './backend.js';

const CHANNEL = 'scratch4school-person';

export class Person {
    /** @param {{backend, channel?: BroadcastChannel, open?: typeof window.open}} options */
    constructor ({backend, channel = new BroadcastChannel(CHANNEL), open = (...args) => window.open(...args)}) {
        this._backend = backend;
        this._channel = channel;
        this._open = open;
        this.user = null;
    }

    /** The user, {id, username, role, groups}, or null when no user is logged in. Throws BackendError 0 or 5xx. */
    async find () {
        try {
            this.user = (await this._backend.json('GET', '/session')).user;
            this._backend.actFor(this.user.id);
        } catch (error) {
            if (!(error instanceof BackendError) || error.isTemporary) throw error;
            this.user = null;
        }
        return this.user;
    }

    get isStaff () {
        return this.user?.role === 'teacher' || this.user?.role === 'admin';
    }

    /** The address that logs in and then leads to a page of this server. */
    loginAddress (page) {
        return `/backend/login?session=cookie&return_to=${encodeURIComponent(page)}`;
    }

    /** Open the login in another window. Must be called by a click, or browsers block the window. */
    openLogin () {
        this._open(this.loginAddress('/logged-in'), 'scratch4school-login', 'popup,width=520,height=720');
    }

    /** Tell the other tabs that this one has just logged in. */
    announceLogin () {
        this._channel.postMessage('login');
    }

    /** Resolves when the same user is logged in again; a login of another user does not count. */
    loggedInAgain (signal) {
        return new Promise(resolve => {
            const check = async () => {
                const answer = await this._backend.json('GET', '/session').catch(() => null);
                if (answer === null || answer.user.id !== this.user.id) return;
                this._channel.removeEventListener('message', check);
                resolve(true);
            };
            this._channel.addEventListener('message', check);
            signal?.addEventListener('abort', () => {
                this._channel.removeEventListener('message', check);
                resolve(false);
            });
        });
    }

    /** End the session, in all tabs. */
    async logOut () {
        await this._backend.json('POST', '/logout').catch(error => {
            if (error.status !== 400 && error.status !== 401) throw error; // those have no session to end
        });
        this._channel.postMessage('logout');
    }

    /** Call `leave` when another tab logs out. */
    onLogOut (leave) {
        this._channel.addEventListener('message', event => {
            if (event.data === 'logout') leave();
        });
    }
}
