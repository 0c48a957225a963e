// The GUIStorage of scratch-gui on our back end (packages/scratch-gui, src/gui-config.ts).

// What scratch-gui calls a project that no server knows.
const NEW_PROJECT = '0';

/** Everything that a project needs travels in its .sb3, so no asset is stored or loaded alone, except the library's. */
export class SchoolStorage {
    /**
     * @param {object} GUI - scratch-gui's global.
     * @param {{backend, project: {load(id), isNew(), save(id, params)}}} options - `load` resolves to an ArrayBuffer;
     * `isNew` says whether the page may show a new project, or resolves never because it leads to another page.
     */
    constructor (GUI, {backend, project}) {
        this._GUI = GUI;
        this._project = project;
        const storage = this.scratchStorage = new GUI.ScratchStorage();
        const {AssetType} = storage;
        storage.store = (type, format, data, id) => Promise.resolve({status: 'ok', id});
        storage.addHelper({
            load: (type, id, format) => {
                if (type.name !== 'Project') return null;
                return id === NEW_PROJECT ? this._project.isNew() : this._load(type, id, format);
            }
        }, 50);
        const files = [AssetType.ImageVector, AssetType.ImageBitmap, AssetType.Sound];
        storage.addWebStore(files, asset => this.getLibraryAssetUrl(asset.assetId, asset.dataFormat));
        // What a pupil takes out of the backpack.
        storage.addWebStore(files, asset => `/backend/api/assets/${asset.assetId}.${asset.dataFormat}`);
        this.backpackStorage = {
            list: async ({limit, offset}) => (await backend.json('GET', '/api/backpack', {query: {limit, offset}})).items,
            save: async ({type, name}, data) => backend.json('POST', '/api/backpack', {
                json: {
                    type,
                    name,
                    mime: data.mimeType(),
                    body: await data.dataAsBase64(),
                    thumbnail: await data.thumbnailAsBase64()
                }
            }),
            delete: id => backend.json('DELETE', `/api/backpack/${id}`)
        };
    }

    /** scratch-gui calls this when its language is known: the default project's sprites have names in it. */
    setTranslatorFunction (translate) {
        const {scratchStorage: storage, _GUI: GUI} = this;
        for (const asset of GUI.buildDefaultProject(translate)) {
            storage.builtinHelper._store(
                storage.AssetType[asset.assetType], storage.DataFormat[asset.dataFormat], asset.data, asset.id
            );
        }
    }

    getLibraryAssetUrl (id, format) {
        return `/library/${id}.${format}`;
    }

    saveProject (id, vmState, params) {
        return this._project.save(id ?? null, params);
    }

    async _load (type, id, format) {
        const data = new Uint8Array(await this._project.load(id));
        return this.scratchStorage.createAsset(type, format, data, id, false);
    }
}
