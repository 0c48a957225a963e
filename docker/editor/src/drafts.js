// Unsaved work, kept in this browser until the server has acknowledged it.
//
// A draft is {userId, key, projectId, title, version, file, thumbnail, changedAt}. `key` is the project's id as text,
// or `new-…` for a project that the server does not know yet. `version` is the version that the work is based on.

const STORE = 'drafts';

function promised (request) {
    return new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
    });
}

export class Drafts {
    /** @param {IDBFactory} indexedDB */
    constructor (indexedDB, name = 'scratch4school') {
        this._indexedDB = indexedDB;
        this._name = name;
        this._database = null;
    }

    /** Replace the draft of the same user and key. */
    async put (draft) {
        const store = await this._store('readwrite');
        await promised(store.put({...draft, changedAt: draft.changedAt ?? Date.now()}));
    }

    /** The draft, or undefined. */
    async get (userId, key) {
        return promised((await this._store('readonly')).get([userId, key]));
    }

    /** The drafts of one user, the newest first. Drafts of other users of this computer are not read. */
    async of (userId) {
        const all = await promised((await this._store('readonly')).index('userId').getAll(userId));
        return all.sort((a, b) => b.changedAt - a.changedAt);
    }

    async remove (userId, key) {
        await promised((await this._store('readwrite')).delete([userId, key]));
    }

    async _store (mode) {
        this._database ??= this._open();
        try {
            return (await this._database).transaction(STORE, mode).objectStore(STORE);
        } catch (error) {
            this._database = null; // the browser closed it; the next call opens it again
            throw error;
        }
    }

    _open () {
        const opening = this._indexedDB.open(this._name, 1);
        opening.onupgradeneeded = () => {
            const store = opening.result.createObjectStore(STORE, {keyPath: ['userId', 'key']});
            store.createIndex('userId', 'userId');
        };
        return promised(opening);
    }
}
